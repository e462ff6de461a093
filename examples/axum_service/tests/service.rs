//! The service in front of a collector that we have not written.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use axum_service::Telemetry;
use forebay_otlp::OtlpBuilder;
use mock_collector::{MockServer, Protocol, SeverityNumber};
use tokio::net::TcpListener;

const LONG: Duration = Duration::from_secs(60);

/// Asks for a path, by hand. Returns the whole answer.
async fn get(address: SocketAddr, path: &'static str) -> String {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    asked.await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_reports_arrives_at_a_collector_also_at_its_end() {
    let server = MockServer::builder().protocol(Protocol::HttpBinary).start().await.unwrap();
    let url = format!("http://{}", server.addr());
    let vars = move |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| url.clone());
    let telemetry = Telemetry::start(OtlpBuilder::from_vars(vars).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let end = async move { _ = stopped.await };
    let serving =
        tokio::spawn(axum::serve(listener, telemetry.router()).with_graceful_shutdown(end).into_future());

    for _ in 0..3 {
        assert!(get(address, "/hello/forebay").await.ends_with("hello forebay"));
    }
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("forebay_sink_events_total{"), "{metrics}");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let report = tokio::task::spawn_blocking(move || telemetry.stop()).await.unwrap().unwrap();
    let stats = report.stats;
    stats.check_law(stats.offered).unwrap();
    let otlp = stats.sink("otlp").unwrap();
    assert_eq!((otlp.delivered, otlp.failed, otlp.in_flight), (otlp.offered, 0, 0), "{otlp:?}");
    assert_eq!(otlp.offered, 6, "three greetings, a counter, a histogram and its description");

    server.wait_for_logs(4, LONG).await.unwrap();
    server.wait_for_metrics(2, LONG).await.unwrap();
    server
        .with_collector(|collector| {
            let hello = collector.expect_log_with_body("hello forebay").with_severity(SeverityNumber::Info);
            hello.with_resource_attributes([("service.name", "axum_service")]).assert_count(3);
            let requests = collector.expect_metric_with_name("requests").with_value_eq(3_i64);
            requests.with_attributes([("route", "/hello")]).assert_count(1);
            collector.expect_histogram("request.duration").with_count_eq(3).assert_exists();
        })
        .await;
    server.shutdown().await.unwrap();
}
