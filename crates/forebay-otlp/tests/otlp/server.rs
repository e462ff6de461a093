//! A server of a test: it answers each request with the next of its replies, and keeps what it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use crate::support::LONG;

/// What the server does when it has read a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// It writes these bytes and closes.
    Raw(Vec<u8>),
    /// It takes the request, and leaves the connection open for more.
    KeepAlive,
    /// It waits until the gate opens, and then takes the request.
    Gate(Arc<Gate>),
}

/// A gate that is closed at first.
#[derive(Default)]
pub(crate) struct Gate(Mutex<bool>, Condvar);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut is_open = self.0.lock().unwrap();
        while !*is_open {
            is_open = self.1.wait(is_open).unwrap();
        }
    }
}

/// Answers with a status, headers and a body.
pub(crate) fn reply(status: &str, headers: &[&str], body: &[u8]) -> Reply {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    Reply::Raw([head.as_bytes(), b"\r\n", body].concat())
}

/// Takes all events.
pub(crate) fn ok() -> Reply {
    reply("200 OK", &["content-type: application/x-protobuf"], b"")
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A server on a port of this machine. It ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Receiver<Request>,
    /// Number of requests that came.
    came: Arc<AtomicUsize>,
    end: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<()>>,
}

/// Makes of a connection what HTTP is spoken on; `None` where that fails.
pub(crate) type Accept = Box<dyn FnMut(TcpStream) -> Option<Box<dyn Connection>> + Send>;

pub(crate) trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl Server {
    /// Starts a server that gives these replies, and the last one from then on.
    pub(crate) fn start(replies: Vec<Reply>) -> Self {
        Self::start_with(replies, Box::new(|stream| Some(Box::new(stream))))
    }

    pub(crate) fn start_with(replies: Vec<Reply>, mut accept: Accept) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let came = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&came);
        let end = Arc::new(Mutex::new(false));
        let is_over = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            for stream in listener.incoming().map_while(Result::ok) {
                if *is_over.lock().unwrap() {
                    return;
                }
                // Somebody who connects and says nothing does not keep the test waiting.
                stream.set_read_timeout(Some(LONG)).unwrap();
                let Some(mut connection) = accept(stream) else { continue };
                loop {
                    let reply = &replies[number.min(replies.len() - 1)];
                    let is_served = serve(&mut connection, reply, &sender).is_some();
                    number += usize::from(is_served);
                    counted.store(number, Ordering::SeqCst);
                    if !is_served || !matches!(reply, Reply::KeepAlive) {
                        break;
                    }
                }
            }
        });
        Self { address, requests, came, end, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the next request that came, or waits for it.
    pub(crate) fn request(&self) -> Request {
        self.requests.recv_timeout(LONG).expect("no request came")
    }

    /// Returns how many requests were answered.
    pub(crate) fn answered(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }

    /// Returns whether no request is left.
    pub(crate) fn has_no_request(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *self.end.lock().unwrap() = true;
        _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// Reads one request and answers it. Returns `None` if there was none.
fn serve(connection: &mut Box<dyn Connection>, reply: &Reply, sender: &Sender<Request>) -> Option<()> {
    let mut reader = BufReader::new(&mut *connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((key, value)) = header.trim().split_once(':') else { break };
        headers.push((key.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers
        .iter()
        .find(|(key, _)| key == "content-length")
        .map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    _ = sender.send(Request { line: line.trim().to_owned(), headers, body });
    let answer = match reply {
        Reply::Raw(bytes) => bytes,
        Reply::KeepAlive => &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        Reply::Gate(gate) => {
            gate.wait();
            let Reply::Raw(bytes) = ok() else { return None };
            &bytes.clone()
        }
    };
    // The client may be gone.
    _ = connection.write_all(answer);
    _ = connection.flush();
    Some(())
}
