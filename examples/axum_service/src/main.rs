//! `axum_service [ADDRESS]` serves until SIGTERM or Ctrl-C, and then reports what is left. `OTEL_EXPORTER_OTLP_ENDPOINT` names the collector.

use std::error::Error;

use axum_service::Telemetry;
use forebay_otlp::OtlpBuilder;
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let telemetry = Telemetry::start(OtlpBuilder::from_env()?)?;
    let listener = TcpListener::bind(&address).await?;
    println!("http://{}", listener.local_addr()?);
    let mut terminated = signal(SignalKind::terminate())?;
    let end = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = ctrl_c() => {}
        }
    };
    axum::serve(listener, telemetry.router()).with_graceful_shutdown(end).await?;
    // It waits, for ten seconds at most.
    let report = tokio::task::spawn_blocking(move || telemetry.stop()).await??;
    println!("{:?}", report.stats.sink("otlp"));
    Ok(())
}
