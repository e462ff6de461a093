//! `Server`: a connection with a runtime of its own, made when it is needed, and again after it broke.
//!
//! The client lives on a thread of tokio, which answers the pings of the server while nobody writes. (On a runtime that moves only while it is
//! asked something, every message after a pause loses its answer.) A connection that broke goes away with its runtime: the client would connect
//! again for ever, and send what was given up.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::{self, Context, response::Response};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Request, ServerAddr, ServerError};
use futures_util::future::{Either, select};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::error::{Failure, UrlError};
use crate::stream::Stream;

/// Servers of a URL: one, or several of a cluster.
pub(crate) struct Server {
    addresses: Vec<ServerAddr>,
    /// Hosts and ports, for errors.
    place: String,
    login: Login,
    pub(crate) timeout: Duration,
    roots: Option<RootCertStore>,
    /// What TLS takes, made for the first connection.
    tls: Option<ClientConfig>,
    connection: Option<Connection>,
}

/// How the client says who it is.
#[derive(Clone)]
enum Login {
    Nobody,
    Token(String),
    User(String, String),
    #[cfg(feature = "nkeys")]
    Nkey(String),
    #[cfg(feature = "nkeys")]
    Credentials(String),
}

impl Server {
    pub(crate) fn open(url: &str) -> Result<Self, UrlError> {
        let refused = |reason: &str| UrlError { reason: reason.to_owned() };
        let (mut addresses, mut places, mut login) = (Vec::new(), Vec::new(), Login::Nobody);
        for url in url.split(',') {
            if !["nats://", "tls://"].iter().any(|scheme| url.starts_with(scheme)) {
                return Err(refused("another scheme"));
            }
            // Whatever the parser says of it may have the password in it.
            let address: ServerAddr = url.parse().map_err(|_| refused("no host and port"))?;
            if address.host().is_empty() {
                return Err(refused("no host"));
            }
            places.push(format!("{}:{}", address.host(), address.port()));
            let decoded = |text: &str| decoded(text).ok_or_else(|| refused("a percent sign must begin %XX"));
            match (address.username(), address.password()) {
                (Some(user), Some(password)) => login = Login::User(decoded(user)?, decoded(password)?),
                (Some(token), None) => login = Login::Token(decoded(token)?),
                (None, Some(_)) => return Err(refused("a password without a user")),
                (None, None) => {}
            }
            addresses.push(address);
        }
        Ok(Self {
            addresses,
            place: places.join(","),
            login,
            timeout: Duration::from_secs(5),
            roots: None,
            tls: None,
            connection: None,
        })
    }

    /// Trusts servers whose certificate has this root, in PEM, and no others.
    pub(crate) fn trust(&mut self, pem: &[u8]) -> Result<(), UrlError> {
        let refused = |why: String| UrlError { reason: format!("the root certificate must be PEM: {why}") };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| refused(error.to_string()))?;
            roots.add(certificate).map_err(|error| refused(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refused("it has no certificate".to_owned()));
        }
        (self.roots, self.tls, self.connection) = (Some(roots), None, None);
        Ok(())
    }

    #[cfg(feature = "nkeys")]
    pub(crate) fn nkey(&mut self, seed: String) {
        (self.login, self.connection) = (Login::Nkey(seed), None);
    }

    #[cfg(feature = "nkeys")]
    pub(crate) fn credentials(&mut self, content: String) -> Result<(), UrlError> {
        // (What it says of them may show them.)
        ConnectOptions::new()
            .credentials(&content)
            .map_err(|_| UrlError { reason: "credentials must have a JWT and a seed".to_owned() })?;
        (self.login, self.connection) = (Login::Credentials(content), None);
        Ok(())
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Does some work with the server, which ends by the timeout. Where the connection broke since it was last used, the work begins again
    /// once, with another one: so it must be work that may be done twice.
    pub(crate) fn run<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Link) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let was_connected = self.connection.is_some();
        match self.attempt(&mut work) {
            Err(failure) if was_connected && failure.is_dropped() => self.attempt(&mut work),
            other => other,
        }
    }

    fn attempt<T>(
        &mut self,
        work: &mut impl AsyncFnMut(&mut Link) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut connection = match self.connection.take().filter(Connection::is_up) {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let outcome = connection.run(self.timeout, work);
        if !matches!(&outcome, Err(failure) if failure.is_of_connection()) {
            self.connection = Some(connection);
        }
        outcome
    }

    fn connect(&mut self) -> Result<Connection, Failure> {
        let options = self.options()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("forebay-nats")
            .enable_all()
            .build()
            .map_err(|error| Failure::broken(format!("a thread cannot be started: {error}")))?;
        let mut connection = Connection { runtime: Some(runtime), link: None, process: std::process::id() };
        let (sender, condition) = watch::channel(Condition::Up);
        let options = options.event_callback(move |event| {
            let next = match event {
                Event::Disconnected | Event::Closed => Some(Condition::Down),
                Event::ServerError(ServerError::Other(said)) if is_refusal(&said) => {
                    Some(Condition::Refused(said))
                }
                _ => None,
            };
            if let Some(next) = next {
                sender.send_replace(next);
            }
            std::future::ready(())
        });
        let addresses = self.addresses.clone();
        let client = connection.block_on(self.timeout, async move {
            options.connect(addresses).await.map_err(|error| Failure::of_connection(&error))
        })?;
        connection.link = Some(connection.block_on(self.timeout, async move {
            let mut jetstream = jetstream::new(client.clone());
            // The work as a whole has an end.
            jetstream.set_timeout(Duration::MAX);
            Ok(Link { client, jetstream, condition, stream: None, page: None })
        })?);
        Ok(connection)
    }

    fn options(&mut self) -> Result<ConnectOptions, Failure> {
        let options = match self.login.clone() {
            Login::Nobody => ConnectOptions::new(),
            Login::Token(token) => ConnectOptions::with_token(token),
            Login::User(user, password) => ConnectOptions::with_user_and_password(user, password),
            #[cfg(feature = "nkeys")]
            Login::Nkey(seed) => ConnectOptions::with_nkey(seed),
            #[cfg(feature = "nkeys")]
            Login::Credentials(content) => ConnectOptions::new()
                .credentials(&content)
                .map_err(|_| Failure::never("credentials must have a JWT and a seed"))?,
        };
        // (Once that is over, this connection is left.)
        let options = options.max_reconnects(1).ignore_discovered_servers();
        Ok(options.name("forebay").connection_timeout(self.timeout).tls_client_config(self.tls()?))
    }

    /// Returns what TLS takes, should a server ask for it.
    fn tls(&mut self) -> Result<ClientConfig, Failure> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let roots = self.roots.clone().unwrap_or_else(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        });
        let tls = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::never(format!("TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.tls.insert(tls).clone())
    }
}

/// Returns whether the server closes no connection after what it says, and does not answer to the message either.
fn is_refusal(said: &str) -> bool {
    said.to_ascii_lowercase().starts_with("permissions violation")
}

/// Replaces `%XX` by the byte that it means.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut all = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        all.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(16 * digit()? + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(all).ok()
}

impl fmt::Debug for Server {
    /// Without the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("place", &self.place)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Up,
    Down,
    /// The server has refused something without an answer.
    Refused(String),
}

/// A client, and the thread that it lives on.
struct Connection {
    runtime: Option<Runtime>,
    link: Option<Link>,
    /// The process that made it.
    process: u32,
}

impl Connection {
    /// Returns whether it can be used, as far as is known. That of a parent cannot.
    fn is_up(&self) -> bool {
        let is_own = self.process == std::process::id();
        is_own && self.link.as_ref().is_some_and(|link| *link.condition.borrow() == Condition::Up)
    }

    fn run<T>(
        &mut self,
        timeout: Duration,
        work: &mut impl AsyncFnMut(&mut Link) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(mut link) = self.link.take() else { return Err(Failure::dropped()) };
        let mut condition = link.condition.clone();
        let outcome = self.block_on(timeout, async {
            let is_over = async {
                let found = condition.wait_for(|condition| *condition != Condition::Up).await;
                found.map_or(Condition::Down, |condition| condition.clone())
            };
            match select(std::pin::pin!(work(&mut link)), std::pin::pin!(is_over)).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right((Condition::Refused(said), _)) => Err(Failure::never(said)),
                Either::Right(_) => Err(Failure::dropped()),
            }
        });
        self.link = Some(link);
        outcome
    }

    /// Waits on this thread for what happens on the other one.
    fn block_on<T>(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Some(runtime) = &self.runtime else { return Err(Failure::dropped()) };
        let _inside = runtime.enter();
        let outcome = pollster::block_on(async { tokio::time::timeout(timeout, work).await });
        outcome.unwrap_or_else(|_| Err(Failure::broken(format!("no answer within {timeout:?}"))))
    }
}

impl Drop for Connection {
    /// Waits for nothing.
    fn drop(&mut self) {
        let (runtime, link) = (self.runtime.take(), self.link.take());
        if self.process != std::process::id() {
            // A forked child has none of the threads, and may find their locks taken.
            std::mem::forget((runtime, link));
            return;
        }
        drop(link);
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

/// A client that is connected, and what is known of the stream.
pub(crate) struct Link {
    client: Client,
    pub(crate) jetstream: Context,
    condition: watch::Receiver<Condition>,
    /// The stream that is written to.
    pub(crate) stream: Option<Stream>,
    /// The page that is read, and the number of the message that comes next.
    pub(crate) page: Option<(jetstream::consumer::PullConsumer, u64)>,
}

impl Link {
    /// Asks JetStream something.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        subject: String,
        question: &(impl Serialize + ?Sized),
    ) -> Result<T, Failure> {
        use async_nats::jetstream::context::RequestErrorKind;
        let answer: Result<Response<T>, _> = self.jetstream.request(subject, question).await;
        match answer {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) => Err(Failure::of_answer(&error)),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(Failure::later("JetStream does not answer (is it enabled? nats-server --jetstream)"))
            }
            Err(error) => Err(Failure::broken(error)),
        }
    }

    /// Sends a message, and waits until the server says where in the stream it is.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Result<u64, Failure> {
        use async_nats::client::RequestErrorKind;
        let request = Request::new().headers(headers).payload(payload.into()).timeout(None);
        let answer = self.client.send_request(subject.to_owned(), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Failure::no_stream(),
            RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                Failure::never(error.to_string())
            }
            _ => Failure::broken(error),
        })?;
        match serde_json::from_slice::<Response<jetstream::publish::PublishAck>>(&answer.payload) {
            Ok(Response::Ok(answer)) => Ok(answer.sequence),
            Ok(Response::Err { error }) => Err(Failure::of_answer(&error)),
            Err(error) => Err(Failure::broken(format!("an answer that is none of JetStream: {error}"))),
        }
    }

    /// Sends a message, without an answer.
    pub(crate) async fn send(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Result<(), Failure> {
        let sent = self.client.publish_with_headers(subject.to_owned(), headers, payload.into()).await;
        sent.map_err(Failure::broken)
    }

    /// Returns how long a message may be, its headers included.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    pub(crate) fn is_server_compatible(&self, major: i64, minor: i64) -> bool {
        self.client.is_server_compatible(major, minor, 0)
    }
}
