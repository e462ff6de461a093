//! A server of a test: started in a folder of its own, killed with the test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::{Connection, Value};
use tempfile::TempDir;

use crate::support::{look_again, skipped};

pub struct RedisServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// Starts a server with these arguments. `None`, said aloud: there is none to start.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let Some(child) = spawn(&folder, port, &arguments) else {
            skipped("no redis-server (Debian: apt-get install redis-server)");
            return None;
        };
        let mut server = Self { folder, port, arguments, child };
        server.until_ready();
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Returns the folder of its files.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connect(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Runs a command, and returns its answer.
    pub fn run(&self, words: &[&str]) -> Value {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = command.arg(*word));
        command.query(&mut self.connect()).unwrap()
    }

    pub fn length(&self, stream: &str) -> u64 {
        redis::cmd("XLEN").arg(stream).query(&mut self.connect()).unwrap()
    }

    /// Kills the server by SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with its files.
    pub fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port, &self.arguments).unwrap();
        self.until_ready();
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: it changes no memory of this process. The child was not waited for, so the number is still its own.
        #[allow(unsafe_code, reason = "only a signal stops a server without an end")]
        let outcome = unsafe { libc::kill(pid, signal) };
        assert_eq!(outcome, 0);
    }

    fn until_ready(&mut self) {
        let client = redis::Client::open(self.url()).unwrap();
        // It answers before it has loaded its files.
        let is_ready = || {
            let mut connection = client.get_connection()?;
            redis::cmd("XLEN").arg("any").query::<u64>(&mut connection)
        };
        while let Err(error) = is_ready() {
            assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended");
            let is_there = matches!(error.code(), Some("NOAUTH" | "CLUSTERDOWN"));
            if error.kind() == redis::ErrorKind::AuthenticationFailed || is_there {
                break;
            }
            look_again();
        }
    }
}

/// Returns a port that was free a moment ago. Should another program take it, the server ends, and so does the test.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn spawn(folder: &TempDir, port: u16, arguments: &[String]) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]).args(arguments);
    command.arg("--dir").arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("redis-server: {error}"),
    }
}
