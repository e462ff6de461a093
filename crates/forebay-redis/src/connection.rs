//! `Server`: a connection that is made when it is needed, and again after it broke.

use std::fmt;
use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Connection, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline, RedisError,
    ServerErrorKind, Value,
};

use crate::address::{Address, Way, at, host_of};
use crate::error::{Failure, UrlError};

/// Server of a stream: the one that a URL names, or that others say has it.
pub(crate) struct Server {
    address: Address,
    /// The node of a cluster that has the stream, as far as it is known.
    node: Option<ConnectionInfo>,
    connection: Option<Connection>,
    pub(crate) timeout: Duration,
    /// Host and port, for errors.
    place: String,
    /// True if what was sent last was sent twice, by two connections.
    has_sent_twice: bool,
}

/// Number of times that a cluster may lead on to another node.
const MAX_REDIRECTS: usize = 5;

impl Server {
    pub(crate) fn open(url: &str) -> Result<Self, UrlError> {
        let address = Address::of(url)?;
        for info in &address.named {
            Client::open(info.clone()).map_err(|error| UrlError {
                reason: error.detail().map_or_else(|| error.category().to_owned(), str::to_owned),
            })?;
        }
        let (place, timeout) = (address.place(), Duration::from_secs(5));
        Ok(Self { address, node: None, connection: None, timeout, place, has_sent_twice: false })
    }

    /// Trusts servers whose certificate has this root, in PEM, and no others.
    #[cfg(feature = "tls")]
    pub(crate) fn trust(&mut self, root: &[u8]) -> Result<(), UrlError> {
        let trusting = |info: &ConnectionInfo| {
            let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(root.to_vec()) };
            let client = Client::build_with_tls(info.clone(), certificates).map_err(|error| {
                let why = error.category();
                UrlError { reason: format!("the root certificate must be PEM, and the url rediss://: {why}") }
            })?;
            Ok(client.get_connection_info().clone())
        };
        for info in &mut self.address.named {
            *info = trusting(info)?;
        }
        if let Way::Sentinel { server, .. } = &mut self.address.way {
            **server = trusting(server)?;
        }
        Ok(())
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Returns whether what was sent last was sent twice.
    pub(crate) fn has_sent_twice(&self) -> bool {
        self.has_sent_twice
    }

    /// Runs a command. A connection that broke since it was last used is made again once, so the command must be one that may run twice.
    pub(crate) fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Failure> {
        let mut answers = self.exchange(&command.get_packed_command(), 1)?;
        let answer =
            answers.pop().unwrap_or(Value::Nil).extract_error().map_err(|error| self.refused(error))?;
        T::from_redis_value(answer).map_err(|error| self.refused(error.into()))
    }

    /// Runs commands in one transaction if they are several. Returns what the server said to each.
    pub(crate) fn run(&mut self, commands: Vec<Cmd>) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let (count, is_transaction) = (commands.len(), commands.len() > 1);
        let mut pipeline = Pipeline::with_capacity(count);
        commands.into_iter().for_each(|command| _ = pipeline.add_command(command));
        if is_transaction {
            pipeline.atomic();
        }
        let sent = count + 2 * usize::from(is_transaction);
        let mut answers = self.exchange(&pipeline.get_packed_pipeline(), sent)?;
        if is_transaction && !matches!(answers.first(), Some(Value::ServerError(_))) {
            let last = answers.pop().unwrap_or(Value::Nil);
            // Refused as it was put together: the server has said why to one of the commands.
            let why = answers.into_iter().find(|answer| matches!(answer, Value::ServerError(_)));
            answers = match (last, why) {
                (Value::Array(answers), _) => answers,
                (other, why) => vec![why.unwrap_or(other); count],
            };
        } else if is_transaction {
            // No transaction began, and each command ran by itself.
            answers = answers.split_off(1);
            answers.truncate(count);
        }
        if answers.len() != count {
            let error = (ErrorKind::UnexpectedReturnType, "the server has answered otherwise than asked");
            return Err(self.refused(error.into()));
        }
        Ok(answers
            .into_iter()
            .map(|answer| match answer.extract_error() {
                // Nothing was done, and nothing said: a transaction that was given up.
                Ok(Value::Nil) => {
                    Err(self
                        .refused((ErrorKind::UnexpectedReturnType, "the transaction was given up").into()))
                }
                other => other.map_err(|error| self.refused(error)),
            })
            .collect())
    }

    /// Notes an error of the server. A server that has become another one's replica, or wants to know who asks, keeps the connection; so
    /// it is closed here, and the next one may lead elsewhere.
    fn refused(&mut self, error: RedisError) -> Failure {
        let failure = Failure::of_command(error);
        if failure.asks_for_connection() {
            self.connection = None;
        }
        failure
    }

    /// Sends bytes, and returns so many answers. A node of a cluster that has not got the stream, and has done nothing, leads to another one.
    fn exchange(&mut self, bytes: &[u8], answers: usize) -> Result<Vec<Value>, Failure> {
        self.has_sent_twice = false;
        let mut all = self.exchange_once(bytes, answers)?;
        for _ in 0..MAX_REDIRECTS {
            let Some(node) = all.iter().find_map(moved_to) else { break };
            let like = self.node.as_ref().or(self.address.named.first());
            self.node = like.map(|like| {
                // Without a host, it is the same one.
                let host = if node.0.is_empty() { host_of(like.addr()).0 } else { node.0 };
                at(like, &host, node.1)
            });
            self.connection = None;
            all = self.exchange_once(bytes, answers)?;
        }
        Ok(all)
    }

    /// Does so with one server. It gives up with the first error, and after the timeout: once that is over, no answer is waited for.
    fn exchange_once(&mut self, bytes: &[u8], answers: usize) -> Result<Vec<Value>, Failure> {
        let was_connected = self.connection.is_some();
        match self.attempt(bytes, answers) {
            Err(failure) if was_connected && failure.is_dropped() => {
                self.has_sent_twice = true;
                self.attempt(bytes, answers)
            }
            other => other,
        }
    }

    fn attempt(&mut self, bytes: &[u8], answers: usize) -> Result<Vec<Value>, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(Failure::of_connection)?,
        };
        let begun = Instant::now();
        let mut read = || {
            connection.send_packed_command(bytes)?;
            let mut all = Vec::with_capacity(answers);
            while all.len() < answers {
                if begun.elapsed() > self.timeout {
                    return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
                }
                all.push(connection.recv_response()?);
            }
            Ok(all)
        };
        let all = read().map_err(Failure::of_command)?;
        // After an error, the answer to an earlier command may still come: that connection is of no more use.
        self.connection = Some(connection);
        Ok(all)
    }

    fn connect(&mut self) -> Result<Connection, RedisError> {
        if let Some(node) = self.node.clone() {
            if let Ok(connection) = self.connect_to(node) {
                return Ok(connection);
            }
            // Others may know of another one.
            self.node = None;
        }
        let mut last = RedisError::from((ErrorKind::InvalidClientConfig, "no server is named"));
        for named in self.address.named.clone() {
            let found = match &self.address.way {
                Way::Direct | Way::Cluster => Ok(named),
                Way::Sentinel { master, server } => {
                    let (master, server) = (master.clone(), (**server).clone());
                    self.ask_sentinel(named, &master).map(|(host, port)| at(&server, &host, port))
                }
            };
            match found.and_then(|info| self.connect_to(info)) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks a sentinel where the master of that name is.
    fn ask_sentinel(&self, sentinel: ConnectionInfo, master: &str) -> Result<(String, u16), RedisError> {
        let mut connection = self.connection_to(sentinel)?;
        let mut command = redis::cmd("SENTINEL");
        let found: Option<(String, u16)> =
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(master).query(&mut connection)?;
        let unknown = || (ErrorKind::MasterNameNotFoundBySentinel, "no sentinel knows the master").into();
        found.ok_or_else(unknown)
    }

    fn connect_to(&mut self, info: ConnectionInfo) -> Result<Connection, RedisError> {
        if !matches!(self.address.way, Way::Direct) {
            self.place = info.addr().to_string();
        }
        self.connection_to(info)
    }

    fn connection_to(&self, info: ConnectionInfo) -> Result<Connection, RedisError> {
        let connection = Client::open(info)?.get_connection_with_timeout(self.timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(connection)
    }

    /// Returns a server for each master of a cluster; and elsewhere this one alone.
    pub(crate) fn masters(mut self) -> Result<Vec<Self>, Failure> {
        if !matches!(self.address.way, Way::Cluster) {
            return Ok(vec![self]);
        }
        let slots: Vec<Vec<Value>> = self.query(redis::cmd("CLUSTER").arg("SLOTS"))?;
        let like = self.node.as_ref().or(self.address.named.first());
        let mut masters = Vec::<(String, u16)>::new();
        for slot in &slots {
            // First slot, last slot, and the master, which begins with host and port.
            let Some(Value::Array(master)) = slot.get(2) else { continue };
            let (Some(host), Some(port)) = (master.first(), master.get(1)) else { continue };
            let (Ok(host), Ok(port)) = (String::from_redis_value_ref(host), u16::from_redis_value_ref(port))
            else {
                continue;
            };
            if !masters.contains(&(host.clone(), port)) {
                masters.push((host, port));
            }
        }
        let server = |(host, port): (String, u16)| {
            let info = like.map(|like| at(like, &host, port));
            let named = info.into_iter().collect();
            Self {
                address: Address { named, way: Way::Cluster },
                node: None,
                connection: None,
                timeout: self.timeout,
                place: format!("{host}:{port}"),
                has_sent_twice: false,
            }
        };
        Ok(masters.into_iter().map(server).collect())
    }
}

/// Returns where an answer says the stream is, if that is what it says: host, which may be empty, and port.
fn moved_to(answer: &Value) -> Option<(String, u16)> {
    let Value::ServerError(error) = answer else { return None };
    let error = RedisError::from(error.clone());
    let is_moved = error.kind() == ErrorKind::Server(ServerErrorKind::Moved);
    let (address, _) = error.redirect_node().filter(|_| is_moved)?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
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
