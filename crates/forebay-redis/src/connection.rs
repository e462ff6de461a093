//! `Server`: a connection that is made when it is needed, and again after it broke.

use std::fmt;
use std::time::Duration;

use redis::{Client, Connection, IntoConnectionInfo, RedisError};

use crate::error::{UrlError, breaks_connection};

/// Server of a URL.
pub(crate) struct Server {
    client: Client,
    connection: Option<Connection>,
    pub(crate) timeout: Duration,
    /// Host and port, for errors.
    place: String,
}

impl Server {
    pub(crate) fn open(url: &str) -> Result<Self, UrlError> {
        let refused = |error: &RedisError| UrlError {
            reason: error.detail().map_or_else(|| error.category().to_owned(), str::to_owned),
        };
        let info = url.into_connection_info().map_err(|error| refused(&error))?;
        let place = info.addr().to_string();
        let client = Client::open(info).map_err(|error| refused(&error))?;
        Ok(Self { client, connection: None, timeout: Duration::from_secs(5), place })
    }

    /// Trusts servers whose certificate has this root, in PEM, and no others.
    #[cfg(feature = "tls")]
    pub(crate) fn trust(&mut self, root: &[u8]) -> Result<(), UrlError> {
        let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(root.to_vec()) };
        let info = self.client.get_connection_info().clone();
        self.client = Client::build_with_tls(info, certificates).map_err(|error| UrlError {
            reason: format!("the root certificate must be PEM, and the url rediss://: {}", error.category()),
        })?;
        Ok(())
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Runs a command, or several. A connection that broke since it was last used is made again once, so the command must be one
    /// that may run twice.
    pub(crate) fn run<T>(
        &mut self,
        mut command: impl FnMut(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let was_connected = self.connection.is_some();
        match self.attempt(&mut command) {
            Err(error) if was_connected && error.is_connection_dropped() => self.attempt(&mut command),
            other => other,
        }
    }

    fn attempt<T>(
        &mut self,
        command: &mut impl FnMut(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let outcome = command(&mut connection);
        // After a time-out, the answer to an earlier command may still come.
        if outcome.as_ref().err().is_none_or(|error| !breaks_connection(error)) {
            self.connection = Some(connection);
        }
        outcome
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
