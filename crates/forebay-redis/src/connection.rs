//! `Server`: a connection that is made when it is needed, and again after it broke.

use std::fmt;
use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Connection, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, Value,
};

use crate::error::{Failure, UrlError};

/// Server of a URL.
pub(crate) struct Server {
    client: Client,
    connection: Option<Connection>,
    pub(crate) timeout: Duration,
    /// Host and port, for errors.
    place: String,
    /// True if what was sent last was sent twice, by two connections.
    has_sent_twice: bool,
}

impl Server {
    pub(crate) fn open(url: &str) -> Result<Self, UrlError> {
        let refused = |error: &RedisError| UrlError {
            reason: error.detail().map_or_else(|| error.category().to_owned(), str::to_owned),
        };
        let info = url.into_connection_info().map_err(|error| refused(&error))?;
        let place = info.addr().to_string();
        let client = Client::open(info).map_err(|error| refused(&error))?;
        Ok(Self { client, connection: None, timeout: Duration::from_secs(5), place, has_sent_twice: false })
    }

    /// Trusts servers whose certificate has this root, in PEM, and no others.
    #[cfg(feature = "tls")]
    pub(crate) fn trust(&mut self, root: &[u8]) -> Result<(), UrlError> {
        let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(root.to_vec()) };
        let info = self.client.get_connection_info().clone();
        self.client = Client::build_with_tls(info, certificates).map_err(|error| {
            let why = error.category();
            UrlError { reason: format!("the root certificate must be PEM, and the url rediss://: {why}") }
        })?;
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

    /// Sends bytes, and returns so many answers. It gives up with the first error, and after the timeout: once that is over, no answer is
    /// waited for.
    fn exchange(&mut self, bytes: &[u8], answers: usize) -> Result<Vec<Value>, Failure> {
        let was_connected = self.connection.is_some();
        self.has_sent_twice = false;
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

    fn connect(&self) -> Result<Connection, RedisError> {
        let connection = self.client.get_connection_with_timeout(self.timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(connection)
    }
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
