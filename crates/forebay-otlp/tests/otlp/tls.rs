//! Endpoints with certificates: nobody has signed those of these servers, but for the client that trusts them.

use std::sync::Arc;

use forebay::sink::Sink;
use forebay::{Batch, Record};
use forebay_otlp::{OtlpBuilder, OtlpSink};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::mapping::logs;
use crate::server::{Server, ok};
use crate::support::LONG;

/// Starts a server with a certificate for this name. Returns the certificate as well.
fn start(name: &str) -> (Server, String) {
    start_for(name, None)
}

/// Starts a server that serves only those who show that certificate.
fn start_for(name: &str, client: Option<&CertificateDer<'static>>) -> (Server, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = client.map_or_else(WebPkiClientVerifier::no_client_auth, |client| {
        let mut roots = RootCertStore::empty();
        roots.add(client.clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap()
    });
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let accept = move |mut stream: std::net::TcpStream| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        // A client that does not trust it ends the handshake.
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).ok()?;
        }
        Some(Box::new(StreamOwned::new(connection, stream)) as Box<dyn crate::server::Connection>)
    };
    (Server::start_with(vec![ok()], Box::new(accept)), cert.pem())
}

#[test]
fn a_certificate_that_nobody_has_signed_is_refused_and_one_that_is_given_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (server, pem) = start("localhost");
    let url = format!("https://localhost:{}", server.address.port());
    let write = |certificate: Option<&str>| {
        let mut builder = OtlpSink::builder().endpoint(&url).timeout(LONG).header("authorization", "5ecret");
        if let Some(pem) = certificate {
            let path = folder.path().join("trusted.pem");
            std::fs::write(&path, pem).unwrap();
            builder = builder.certificate(path);
        }
        builder.build().unwrap().write_batch(&Batch::from_events(vec![Record::new("a")]))
    };
    let error = write(None).unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(error.to_string().contains("is not to be trusted"), "{error}");
    // Another one of the same name.
    let error = write(Some(&start("localhost").1)).unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("is not to be trusted"), "{error}");
    assert!(server.has_no_request(), "nothing was sent to it");

    write(Some(&pem)).unwrap();
    assert_eq!(logs(&server.request().body).len(), 1);

    // That of another name.
    let (server, pem) = start("elsewhere.example");
    let path = folder.path().join("other.pem");
    std::fs::write(&path, pem).unwrap();
    let url = format!("https://localhost:{}", server.address.port());
    let mut sink = OtlpSink::builder().endpoint(url).timeout(LONG).certificate(path).build().unwrap();
    let error = sink.write_batch(&Batch::from_events(vec![Record::new("a")])).unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("is not to be trusted"), "{error}");
    assert!(server.has_no_request());
}

#[test]
fn a_server_that_asks_who_the_client_is_gets_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["client".to_owned()]).unwrap();
    let (server, pem) = start_for("localhost", Some(cert.der()));
    let file = |name: &str, content: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (trusted, shown, key) = (
        file("ca.pem", pem),
        file("client.pem", cert.pem()),
        file("client.key", signing_key.serialize_pem()),
    );
    let url = format!("https://localhost:{}", server.address.port());
    let write = |with_client: bool| {
        let value_of = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(url.clone()),
            "OTEL_EXPORTER_OTLP_CERTIFICATE" => Some(trusted.clone()),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" if with_client => Some(shown.clone()),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY" if with_client => Some(key.clone()),
            _ => None,
        };
        let mut sink = OtlpBuilder::from_vars(value_of).unwrap().build().unwrap();
        sink.write_batch(&Batch::from_events(vec![Record::new("a")]))
    };
    assert!(write(false).is_err());
    assert!(server.has_no_request());
    write(true).unwrap();
    assert_eq!(logs(&server.request().body).len(), 1);
}

#[test]
fn plain_and_encrypted_do_not_understand_each_other() {
    let plain = Server::start(vec![ok()]);
    let url = format!("https://localhost:{}", plain.address.port());
    let mut sink = OtlpSink::builder().endpoint(url).timeout(LONG).build().unwrap();
    assert!(sink.write_batch(&Batch::from_events(vec![Record::new("a")])).is_err());

    let (encrypted, _) = start("localhost");
    let mut sink = OtlpSink::builder().endpoint(encrypted.url()).timeout(LONG).build().unwrap();
    assert!(sink.write_batch(&Batch::from_events(vec![Record::new("a")])).is_err());
    assert!(encrypted.has_no_request());
}

#[test]
fn a_file_without_a_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.pem");
    for content in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, content).unwrap();
        let error = OtlpSink::builder().endpoint("https://localhost").certificate(&path).build().unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("the certificate must be a file of certificates (PEM), got "), "{error}");
        assert!(error.contains("empty.pem"), "{error}");
    }
}
