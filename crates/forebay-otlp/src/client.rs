//! The client of one endpoint: a request, and what its answer means.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, Proxy, ProxyProtocol};

use crate::endpoint::{masked, without_secrets};
use crate::error::{OtlpError, shown};
use crate::secret::SecretHeaders;
use crate::wire::{Read, read};

/// The most bytes of an answer that are read. An answer of a collector has a few.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Longest wait that a collector may ask for by `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Destination of a signal.
pub(crate) struct Destination {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
    pub(crate) gzip: bool,
    pub(crate) certificate: Option<(String, PathBuf)>,
    pub(crate) client_certificate: Option<(String, PathBuf)>,
    pub(crate) client_key: Option<(String, PathBuf)>,
    pub(crate) proxy: Option<Proxy>,
}

/// Client of one endpoint.
pub(crate) struct Client {
    agent: Agent,
    uri: Uri,
    /// As they are sent.
    headers: HeaderMap,
    /// As the agent has them: [`SecretHeaders`] knows their values.
    masked: HeaderMap,
    gzip: bool,
}

/// What a collector says of a request that it took.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Number of events that it rejected.
    pub(crate) rejected: u64,
    /// Why, or a warning.
    pub(crate) message: Option<String>,
}

/// Reason why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) kind: FailureKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Trying again may help, after that wait if it is known.
    Transient(Option<Duration>),
    /// This request cannot be taken. Another one may be.
    OfRequest,
    /// No request can be taken.
    OfDestination,
}

/// Makes the client of a destination. Connects later.
pub(crate) fn connect(to: Destination) -> Result<Client, OtlpError> {
    let config = Agent::config_builder()
        // Whatever the status is, it is looked at here.
        .http_status_as_error(false)
        // A body is not sent to somewhere else.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(to.timeout))
        .user_agent(concat!("forebay-otlp/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(1)
        .proxy(to.proxy.clone());
    let config = tls(config, &to)?;
    let (secrets, masked) = SecretHeaders::of(&to.headers);
    let connector = DefaultConnector::new().chain(secrets);
    let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
    Ok(Client { agent, uri: to.uri, headers: to.headers, masked, gzip: to.gzip })
}

type AgentConfig = ureq::config::ConfigBuilder<ureq::typestate::AgentScope>;

#[cfg(feature = "tls")]
fn tls(config: AgentConfig, to: &Destination) -> Result<AgentConfig, OtlpError> {
    use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

    let read = |setting: &str, path: &Path, what: &str| {
        std::fs::read(path).map_err(|error| OtlpError::new(setting, what, not_read(path, &error.to_string())))
    };
    let certificates = |setting: &str, path: &Path| {
        let what = "a file of certificates (PEM)";
        let pem = read(setting, path, what)?;
        let items: Result<Vec<PemItem<'_>>, ureq::Error> = parse_pem(&pem).collect();
        let certificates = items.unwrap_or_default().into_iter().filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<Certificate<'static>> = certificates.collect();
        if certificates.is_empty() {
            return Err(OtlpError::new(setting, what, not_read(path, "no certificate in it")));
        }
        Ok(certificates)
    };
    let mut tls = TlsConfig::builder();
    if let Some((setting, path)) = &to.certificate {
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates(setting, path)?));
    }
    match (&to.client_certificate, &to.client_key) {
        (None, None) => {}
        (Some((setting, path)), Some((key_setting, key_path))) => {
            let what = "a file with a private key (PEM)";
            let pem = read(key_setting, key_path, what)?;
            let key = PrivateKey::from_pem(&pem)
                .map_err(|_| OtlpError::new(key_setting, what, not_read(key_path, "no private key in it")))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(setting, path)?, key)));
        }
        (Some((setting, _)), None) | (None, Some((setting, _))) => {
            return Err(OtlpError::new(
                setting,
                "set together with its counterpart",
                "one without the other",
            ));
        }
    }
    Ok(config.tls_config(tls.build()))
}

#[cfg(not(feature = "tls"))]
fn tls(config: AgentConfig, to: &Destination) -> Result<AgentConfig, OtlpError> {
    let set = [&to.certificate, &to.client_certificate, &to.client_key].into_iter().flatten().next();
    set.map_or(Ok(config), |(setting, path)| {
        Err(OtlpError::new(setting, "not set where the feature `tls` is off", not_read(path, "")))
    })
}

fn not_read(path: &Path, why: &str) -> String {
    let path = shown(&path.to_string_lossy());
    if why.is_empty() { path } else { format!("{path} ({why})") }
}

/// Makes a proxy of an environment variable.
pub(crate) fn proxy(setting: &str, url: &str, no_proxy: &str) -> Result<Proxy, OtlpError> {
    let error = || OtlpError::new(setting, "the URL of a proxy, http:// or https://", without_secrets(url));
    let parsed = Proxy::new(url.trim()).map_err(|_| error())?;
    let protocol = parsed.protocol();
    if !matches!(protocol, ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(error());
    }
    let mut builder = Proxy::builder(protocol).host(parsed.host()).port(parsed.port());
    if let Some(name) = parsed.username() {
        builder = builder.username(name);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for host in no_proxy.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        builder = builder.no_proxy(host);
    }
    builder.build().map_err(|_| error())
}

impl Client {
    /// Sends a request, and returns what its answer means. Takes at most the timeout.
    pub(crate) fn post(&self, body: &[u8]) -> Result<Answer, Failure> {
        let mut request =
            self.agent.post(self.uri.clone()).header(header::CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.masked {
            request = request.header(name, value);
        }
        let sent = if self.gzip {
            let packed = gzip(body).map_err(|error| Failure {
                message: format!("the request could not be compressed: {error}"),
                kind: FailureKind::OfRequest,
            })?;
            request.header(header::CONTENT_ENCODING, "gzip").send(&packed[..])
        } else {
            request.send(body)
        };
        let response = sent.map_err(|error| self.failed(error))?;
        self.answer(response)
    }

    fn answer(&self, mut response: Response<Body>) -> Result<Answer, Failure> {
        let status = response.status();
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let of_type = response.headers().get(header::CONTENT_TYPE).and_then(|of_type| of_type.to_str().ok());
        let is_html = of_type.is_some_and(|of_type| of_type.to_ascii_lowercase().contains("html"));
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        if status.is_success() {
            let body = body.map_err(|error| self.failed(error))?;
            if let Some(answer) = answer_of(&body) {
                return Ok(self.clean(answer));
            }
            let message =
                format!("{} answered {status} with something that is no answer of OTLP", self.shown());
            // A page for people, such as one to log in. A gateway that took the request may say so in its own words.
            if is_html || body.trim_ascii_start().starts_with(b"<") {
                return Err(Failure { message, kind: FailureKind::OfDestination });
            }
            return Ok(Answer { rejected: 0, message: Some(message) });
        }
        let said = body
            .ok()
            .and_then(|body| text_of(&body))
            // Masked as it came: what is cut or escaped is not found.
            .map(|text| format!(": {}", shown(&self.without_headers(&text))));
        let mut message = format!("{} answered {status}{}", self.shown(), said.unwrap_or_default());
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => FailureKind::Transient(retry_after),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                FailureKind::OfRequest
            }
            _ => FailureKind::OfDestination,
        };
        if status.is_redirection() {
            let location =
                response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
            let to =
                location.map(|location| format!(" to {}", shown(&self.without_headers(&masked(location)))));
            message = format!(
                "{} redirects ({status}){}, which is not followed",
                self.shown(),
                to.unwrap_or_default()
            );
        }
        Err(Failure { message, kind })
    }

    /// Returns what it means that there is no answer, or not all of it.
    fn failed(&self, error: ureq::Error) -> Failure {
        use ureq::Error;
        let to = self.shown();
        let (message, kind) = match error {
            // What TLS does not accept is not accepted a second later.
            Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                (format!("{to} is not to be trusted: {error}"), FailureKind::OfDestination)
            }
            Error::Io(error) => (format!("{to} cannot be reached: {error}"), FailureKind::Transient(None)),
            Error::HostNotFound => {
                (format!("{to} cannot be reached: host not found"), FailureKind::Transient(None))
            }
            Error::ConnectionFailed => {
                (format!("{to} cannot be reached: connection failed"), FailureKind::Transient(None))
            }
            Error::ConnectProxyFailed(why) => {
                (format!("{to} cannot be reached through the proxy: {why}"), FailureKind::Transient(None))
            }
            Error::Timeout(_) => (format!("{to} did not answer in time"), FailureKind::Transient(None)),
            Error::Protocol(error) => {
                (format!("{to} does not speak HTTP/1.1: {error}"), FailureKind::OfDestination)
            }
            Error::BodyExceedsLimit(limit) => {
                (format!("{to} answered with more than {limit} bytes"), FailureKind::OfDestination)
            }
            Error::BadUri(_) => (format!("{to} is no valid URL"), FailureKind::OfDestination),
            error => (format!("{to} cannot be used: {error}"), FailureKind::OfDestination),
        };
        Failure { message: self.without_headers(&message), kind }
    }

    /// Takes the values of headers out of what a collector says: some repeat what they were sent.
    fn clean(&self, answer: Answer) -> Answer {
        Answer { message: answer.message.map(|text| self.without_headers(&text)), ..answer }
    }

    fn without_headers(&self, text: &str) -> String {
        let values = self.headers.values().filter_map(|value| value.to_str().ok());
        // Also without the word before it, as in `Bearer 5ecret`.
        let parts = values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)]);
        let mut parts: Vec<&str> = parts.flatten().filter(|part| part.len() > 3).collect();
        // What has another one in it goes first.
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        parts.into_iter().fold(text.to_owned(), |text, part| text.replace(part, "***"))
    }

    fn shown(&self) -> String {
        without_secrets(&self.uri.to_string())
    }
}

impl fmt::Debug for Client {
    /// Shows the URL without what may be secret, and how many headers there are: a key may stand in the place of a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &format_args!("{}", self.shown()))
            .field("headers", &self.headers.len())
            .field("gzip", &self.gzip)
            .finish_non_exhaustive()
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Decodes the answer to a request that was taken: those for logs and for metrics have the same form. An empty one took all.
fn answer_of(body: &[u8]) -> Option<Answer> {
    let (mut rejected, mut message, mut is_whole) = (0, None, true);
    let outer = read(body, |field, value| {
        if let (1, Read::Bytes(partial)) = (field, value) {
            let inner = read(partial, |field, value| match (field, value) {
                // It is signed, and below zero it means nothing.
                (1, Read::Number(number)) => rejected = i64::max(number as i64, 0) as u64,
                (2, Read::Bytes(text)) => message = Some(String::from_utf8_lossy(text).into_owned()),
                _ => {}
            });
            is_whole &= inner.is_some();
        }
    });
    outer
        .filter(|()| is_whole)
        .map(|()| Answer { rejected, message: message.filter(|text| !text.is_empty()) })
}

/// Returns what a refusal says: the message of a `google.rpc.Status`, or a text.
fn text_of(body: &[u8]) -> Option<String> {
    let mut message = None;
    let status = read(body, |field, value| {
        if let (2, Read::Bytes(text)) = (field, value) {
            message = Some(String::from_utf8_lossy(text).into_owned());
        }
    });
    let text = status.and(message).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Returns the wait that `Retry-After` asks for, as seconds or as a date. A longer one is cut to five minutes.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    let wait = seconds.or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    })?;
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_five_minutes_at_most() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("0"), Some(0));
        assert_eq!(wait("99999999999999999999999"), Some(300));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:40 GMT"), Some(3));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:30 GMT"), Some(0), "it is over");
        assert_eq!(wait("Sat, 06 Nov 2094 08:49:30 GMT"), Some(300));
        for text in ["", "-1", "1.5", "soon", "Sun, 99 Nov 1994 08:49:30 GMT"] {
            assert_eq!(wait(text), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn an_answer_is_read_and_what_is_none_is_found_out() {
        assert_eq!(answer_of(b""), Some(Answer { rejected: 0, message: None }));
        // partial_success { rejected: 3, error_message: "no" }
        let answer = Answer { rejected: 3, message: Some("no".to_owned()) };
        assert_eq!(answer_of(b"\x0a\x06\x08\x03\x12\x02no"), Some(answer));
        // Below zero.
        let negative = b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(answer_of(negative), Some(Answer { rejected: 0, message: None }));
        for garbage in [&b"ok"[..], b"<html></html>", b"\x0a\x05\x08", b"\x0a\x02\x08\xff"] {
            assert_eq!(answer_of(garbage), None);
        }
        assert_eq!(text_of(b"\x08\x03\x12\x02no").as_deref(), Some("no"));
        assert_eq!(text_of(b"not here\x1b[31m").as_deref(), Some("not here\x1b[31m"));
        assert_eq!(text_of(b" "), None);
    }
}
