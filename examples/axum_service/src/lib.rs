//! A service with axum: its events and its metrics go to a collector of OpenTelemetry, and it shows how it is itself.
//!
//! No request waits for telemetry: `collect` and `counter!` push and return.

use std::error::Error;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use forebay::collector::StopError;
use forebay::sink::{RetryPolicy, SinkExt};
use forebay::stats::{HealthStatus, StopReport};
use forebay::{Collector, Record};
use forebay_metrics::Sampler;
use forebay_otlp::OtlpBuilder;
use metrics::{Unit, counter, describe_histogram, histogram};

/// What the service reports through, as long as it runs.
pub struct Telemetry {
    collector: Collector,
    sampler: Sampler,
}

impl Telemetry {
    /// Begins to report. The recorder is that of the whole program, so there is one.
    pub fn start(otlp: OtlpBuilder) -> Result<Self, Box<dyn Error>> {
        let otlp = otlp.metrics(true).gzip(true).build()?.retry(RetryPolicy::default());
        let collector = Collector::builder().source("axum_service").sink(otlp).start()?;
        let sampler =
            forebay_metrics::Builder::new().interval(Duration::from_secs(10)).install(&collector)?;
        describe_histogram!("request.duration", Unit::Seconds, "from the request to the answer");
        Ok(Self { collector, sampler })
    }

    /// Makes the service.
    pub fn router(&self) -> Router {
        let shown = Router::new().route("/health", get(health)).route("/metrics", get(metrics));
        shown.route("/hello/{name}", get(hello)).with_state(self.collector.clone())
    }

    /// Reports what is left, and ends: call it when the server has ended, on a thread that may wait.
    pub fn stop(self) -> Result<StopReport, StopError> {
        self.sampler.stop();
        self.collector.stop_timeout(Duration::from_secs(10))
    }
}

async fn hello(State(collector): State<Collector>, Path(name): Path<String>) -> String {
    let begun = Instant::now();
    counter!("requests", "route" => "/hello").increment(1);
    let answer = format!("hello {name}");
    collector.collect(
        Record::new("hello.said").with_field("message", answer.as_str()).with_field("level", "info"),
    );
    histogram!("request.duration", "route" => "/hello").record(begun.elapsed());
    answer
}

/// Whether the telemetry is well: its alerts, one a line.
async fn health(State(collector): State<Collector>) -> impl IntoResponse {
    let health = collector.health();
    let status = match health.status {
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    (status, health.to_string())
}

/// What became of all events, for Prometheus.
async fn metrics(State(collector): State<Collector>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4")], collector.stats().to_prometheus("axum_service"))
}
