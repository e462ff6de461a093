//! `OtlpBuilder`: where a sink sends to, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use forebay::Pattern;
use ureq::http::HeaderMap;

use crate::client::{self, Client, Destination};
use crate::endpoint::{insert_header, parse_pairs, parse_url};
use crate::error::{OtlpError, shown};
use crate::sink::OtlpSink;

const DEFAULT_ENDPOINT: &str = "http://localhost:4318";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The client adds it to the time of its clock, which ends somewhere.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
const DEFAULT_REQUEST_BYTES: usize = 4 << 20;
/// A request must have space for the resource and for an event.
const MIN_REQUEST_BYTES: usize = 4 << 10;

/// Value of a setting, and the name under which it was set: that of an environment variable, or that of a method.
type Set<T> = Option<(String, T)>;

/// Settings that OpenTelemetry has for all signals, and once more for each.
#[derive(Default)]
struct Signal {
    endpoint: Set<String>,
    headers: Set<Vec<(String, String)>>,
    timeout: Set<Duration>,
    gzip: Set<bool>,
    certificate: Set<PathBuf>,
    client_certificate: Set<PathBuf>,
    client_key: Set<PathBuf>,
}

/// Builder of an [`OtlpSink`]. Made by [`OtlpSink::builder`] and [`OtlpBuilder::from_env`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use forebay_otlp::OtlpSink;
///
/// # fn main() -> Result<(), forebay_otlp::OtlpError> {
/// let sink = OtlpSink::builder()
///     .endpoint("http://localhost:4318")
///     .header("authorization", "Bearer 5ecret")
///     .resource("deployment.environment.name", "staging")
///     .timeout(Duration::from_secs(5))
///     .gzip(true)
///     .metrics(true)
///     .build()?;
/// assert!(!format!("{sink:?}").contains("5ecret"));
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct OtlpBuilder {
    name: String,
    all: Signal,
    logs: Signal,
    metrics: Signal,
    has_metrics: bool,
    sums: Vec<Pattern>,
    resource: BTreeMap<String, String>,
    max_request_bytes: usize,
    /// Environment variables of proxies, with their names.
    proxies: Vec<(&'static str, String)>,
    no_proxy: String,
}

impl OtlpSink {
    /// Begins a sink that reads no environment variable.
    pub fn builder() -> OtlpBuilder {
        OtlpBuilder::default()
    }

    /// Makes the sink that the environment describes: see [`OtlpBuilder::from_env`].
    ///
    /// # Errors
    ///
    /// A variable has a value that is not allowed, or names a certificate that cannot be read.
    pub fn from_env() -> Result<Self, OtlpError> {
        OtlpBuilder::from_env()?.build()
    }
}

impl Default for OtlpBuilder {
    fn default() -> Self {
        Self {
            name: "otlp".to_owned(),
            all: Signal::default(),
            logs: Signal::default(),
            metrics: Signal::default(),
            has_metrics: false,
            sums: Vec::new(),
            resource: BTreeMap::new(),
            max_request_bytes: DEFAULT_REQUEST_BYTES,
            proxies: Vec::new(),
            no_proxy: String::new(),
        }
    }
}

impl OtlpBuilder {
    /// Reads the standard variables: those of `OTEL_EXPORTER_OTLP_*` that the page `docs/otlp.md` lists, `OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`, and those of proxies. An empty variable counts as not set. What is set later wins.
    ///
    /// # Errors
    ///
    /// A variable has a value that is not allowed.
    pub fn from_env() -> Result<Self, OtlpError> {
        Self::from_vars(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads these variables from elsewhere than the environment.
    ///
    /// ```
    /// use forebay_otlp::OtlpBuilder;
    ///
    /// let vars = |name: &str| (name == "OTEL_EXPORTER_OTLP_PROTOCOL").then(|| "grpc".to_owned());
    /// let error = OtlpBuilder::from_vars(vars).unwrap_err();
    /// assert_eq!(error.to_string(), "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, got \"grpc\"");
    /// ```
    ///
    /// # Errors
    ///
    /// A variable has a value that is not allowed.
    pub fn from_vars(value_of: impl Fn(&str) -> Option<String>) -> Result<Self, OtlpError> {
        let value_of = |name: &str| value_of(name).filter(|value| !value.trim().is_empty());
        let mut builder = Self {
            all: Signal::from_vars("OTEL_EXPORTER_OTLP_", &value_of)?,
            logs: Signal::from_vars("OTEL_EXPORTER_OTLP_LOGS_", &value_of)?,
            metrics: Signal::from_vars("OTEL_EXPORTER_OTLP_METRICS_", &value_of)?,
            ..Self::default()
        };
        let attributes = "OTEL_RESOURCE_ATTRIBUTES";
        if let Some(list) = value_of(attributes) {
            builder.resource.extend(parse_pairs(attributes, &list, false)?);
        }
        if let Some(name) = value_of("OTEL_SERVICE_NAME") {
            builder = builder.service_name(name);
        }
        // The order in which they are asked, for each scheme.
        for name in ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            builder.proxies.extend(value_of(name).map(|url| (name, url)));
        }
        builder.no_proxy = value_of("no_proxy").or_else(|| value_of("NO_PROXY")).unwrap_or_default();
        Ok(builder)
    }

    /// Sets the endpoint of all signals: `/v1/logs` and `/v1/metrics` are appended to its path. Defaults to `http://localhost:4318`.
    /// It takes the place of endpoints that were set for one signal before.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.all.endpoint = Some(("the endpoint".to_owned(), url.into()));
        (self.logs.endpoint, self.metrics.endpoint) = (None, None);
        self
    }

    /// Sets the whole URL for logs. Defaults to one below the [endpoint](Self::endpoint).
    pub fn logs_endpoint(mut self, url: impl Into<String>) -> Self {
        self.logs.endpoint = Some(("the endpoint of logs".to_owned(), url.into()));
        self
    }

    /// Sets the whole URL for metrics. Defaults to one below the [endpoint](Self::endpoint).
    pub fn metrics_endpoint(mut self, url: impl Into<String>) -> Self {
        self.metrics.endpoint = Some(("the endpoint of metrics".to_owned(), url.into()));
        self
    }

    /// Adds a header to every request. Its value appears in no error, log or `Debug`, and its name in no error or `Debug`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let pair = (name.into(), value.into());
        for signal in [&mut self.all, &mut self.logs, &mut self.metrics] {
            if let Some((_, headers)) = &mut signal.headers {
                headers.push(pair.clone());
            }
        }
        self.all.headers.get_or_insert_with(|| ("the headers".to_owned(), vec![pair]));
        self
    }

    /// Sets the longest time for a request with its answer. Defaults to 10 s. More than a year counts as a year.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.set(|signal, value| signal.timeout = value, "the timeout", timeout);
        self
    }

    /// Compresses bodies with gzip. Defaults to false.
    pub fn gzip(mut self, gzip: bool) -> Self {
        self.set(|signal, value| signal.gzip = value, "the compression", gzip);
        self
    }

    /// Trusts the certificates in this file (PEM) in place of those that browsers trust. Needs the feature `tls`.
    pub fn certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.set(|signal, value| signal.certificate = value, "the certificate", path.into());
        self
    }

    /// Sets something for all signals, and takes away what was set for one.
    fn set<T>(&mut self, set: impl Fn(&mut Signal, Set<T>), setting: &str, value: T) {
        set(&mut self.logs, None);
        set(&mut self.metrics, None);
        set(&mut self.all, Some((setting.to_owned(), value)));
    }

    /// Sends numbers and histograms as metrics, and the rest as logs. Defaults to false: everything is a log.
    ///
    /// A metric has a time and no step, so the step is an attribute, `forebay.step`. Some backends keep a series for each value of an
    /// attribute: leave steps out there by [`SinkExt::map`](forebay::sink::SinkExt::map), or let numbers be logs.
    pub fn metrics(mut self, are_sent: bool) -> Self {
        self.has_metrics = are_sent;
        self
    }

    /// Sends numbers whose names a pattern stands for as sums that never fall, such as `tokens.total`. Defaults to none but those that the
    /// crate `forebay-metrics` marks as counters; others are gauges. A second call adds a pattern.
    pub fn sums(mut self, pattern: impl Into<Pattern>) -> Self {
        self.sums.push(pattern.into());
        self
    }

    /// Sets `service.name`. Defaults to the [source](forebay::Builder::source) of the collector.
    pub fn service_name(self, name: impl Into<String>) -> Self {
        self.resource("service.name", name)
    }

    /// Adds an attribute of the resource. It takes the place of one that we would send.
    pub fn resource(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.resource.insert(key.into(), value.into());
        self
    }

    /// Sets the most bytes of a request, uncompressed, from 4 KiB. A batch that has more becomes several requests, and an event that has more is
    /// refused and counted as failed. Defaults to 4 MiB.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Sets the name under which the sink is counted. Defaults to `otlp`.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Builds the sink. Nothing is sent, and no name is looked up.
    ///
    /// # Errors
    ///
    /// A setting is not allowed, or a certificate cannot be read.
    pub fn build(self) -> Result<OtlpSink, OtlpError> {
        if self.max_request_bytes < MIN_REQUEST_BYTES {
            let allowed = format!("at least {MIN_REQUEST_BYTES}");
            return Err(OtlpError::new("max_request_bytes", allowed, self.max_request_bytes));
        }
        if let Some(key) = self.resource.keys().find(|key| key.is_empty()) {
            return Err(OtlpError::new("resource attributes", "named", shown(key)));
        }
        let logs = self.client(&self.logs, "v1/logs")?;
        let metrics = self.has_metrics.then(|| self.client(&self.metrics, "v1/metrics")).transpose()?;
        Ok(OtlpSink::new(self.name, logs, metrics, self.sums, self.resource, self.max_request_bytes))
    }

    /// Makes the client of a signal: what is set for it alone goes first.
    fn client(&self, own: &Signal, path: &str) -> Result<Client, OtlpError> {
        let all = &self.all;
        let uri = match (&own.endpoint, &all.endpoint) {
            (Some((setting, url)), _) => parse_url(setting, url, None)?,
            (None, Some((setting, url))) => parse_url(setting, url, Some(path))?,
            (None, None) => parse_url("the endpoint", DEFAULT_ENDPOINT, Some(path))?,
        };
        let mut headers = HeaderMap::new();
        if let Some((setting, pairs)) = own.headers.as_ref().or(all.headers.as_ref()) {
            for (number, (name, value)) in pairs.iter().enumerate() {
                insert_header(setting, &mut headers, number + 1, (name, value))?;
            }
        }
        let timeout = own.timeout.as_ref().or(all.timeout.as_ref());
        let timeout = match timeout {
            Some((setting, timeout)) if timeout.is_zero() => {
                return Err(OtlpError::new(setting, "more than zero", "0"));
            }
            timeout => timeout.map_or(DEFAULT_TIMEOUT, |(_, timeout)| (*timeout).min(MAX_TIMEOUT)),
        };
        let file = |own: &Set<PathBuf>, all: &Set<PathBuf>| own.as_ref().or(all.as_ref()).cloned();
        client::connect(Destination {
            proxy: self.proxy_for(&uri)?,
            uri,
            headers,
            timeout,
            gzip: own.gzip.as_ref().or(all.gzip.as_ref()).is_some_and(|(_, gzip)| *gzip),
            certificate: file(&own.certificate, &all.certificate),
            client_certificate: file(&own.client_certificate, &all.client_certificate),
            client_key: file(&own.client_key, &all.client_key),
        })
    }

    /// Returns the proxy for a URL: that of its scheme, or else that of all.
    fn proxy_for(&self, uri: &ureq::http::Uri) -> Result<Option<ureq::Proxy>, OtlpError> {
        let scheme = uri.scheme_str().unwrap_or("http");
        let of_scheme = |name: &str| {
            name.to_ascii_lowercase().strip_suffix("_proxy").is_some_and(|of| of == scheme || of == "all")
        };
        let Some((name, url)) = self.proxies.iter().find(|(name, _)| of_scheme(name)) else {
            return Ok(None);
        };
        client::proxy(name, url, &self.no_proxy).map(Some)
    }
}

impl Signal {
    fn from_vars(prefix: &str, value_of: &dyn Fn(&str) -> Option<String>) -> Result<Self, OtlpError> {
        let get = |name: &str| {
            let name = format!("{prefix}{name}");
            value_of(&name).map(|value| (name, value.trim().to_owned()))
        };
        if let Some((name, protocol)) = get("PROTOCOL").filter(|(_, protocol)| protocol != "http/protobuf") {
            return Err(OtlpError::new(name, "http/protobuf", shown(&protocol)));
        }
        let headers =
            get("HEADERS").map(|(name, list)| parse_pairs(&name, &list, true).map(|pairs| (name, pairs)));
        let timeout = get("TIMEOUT").map(|(name, text)| {
            let millis = text.parse().ok().filter(|millis| *millis > 0);
            let error = || OtlpError::new(&name, "a whole number of milliseconds from 1", shown(&text));
            millis.map(Duration::from_millis).ok_or_else(error).map(|timeout| (name.clone(), timeout))
        });
        let gzip = get("COMPRESSION").map(|(name, text)| match text.as_str() {
            "gzip" => Ok((name, true)),
            "none" => Ok((name, false)),
            _ => Err(OtlpError::new(name, "gzip or none", shown(&text))),
        });
        let file = |name| get(name).map(|(name, path)| (name, PathBuf::from(path)));
        Ok(Self {
            endpoint: get("ENDPOINT"),
            headers: headers.transpose()?,
            timeout: timeout.transpose()?,
            gzip: gzip.transpose()?,
            certificate: file("CERTIFICATE"),
            client_certificate: file("CLIENT_CERTIFICATE"),
            client_key: file("CLIENT_KEY"),
        })
    }
}

impl fmt::Debug for OtlpBuilder {
    /// Shows nothing that may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpBuilder")
            .field("name", &self.name)
            .field("has_metrics", &self.has_metrics)
            .field("max_request_bytes", &self.max_request_bytes)
            .finish_non_exhaustive()
    }
}
