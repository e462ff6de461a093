//! `forebay serve`: the page of a report, live. It answers three questions by HTTP/1.1 and changes nothing:
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page |
//! | `/data` | what it shows, as JSON |
//! | `/events` | server-sent events: one for each change of the data |
//!
//! Paths are compared, never opened, so none leads out of the folder. The host that a browser names must be the one that it was told:
//! else a page of somebody else could ask under a name that it has made lead here (DNS rebinding).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use forebay_history::{Run, find_runs};

use crate::args::Serve;
use crate::error::Error;
use crate::folder::{self, Named};
use crate::out::Out;
use crate::page;

/// Clients at once. A page takes one, and for a moment two.
const MAX_CLIENTS: usize = 32;
/// Bytes of a question. Browsers send about one kB.
const MAX_HEAD: u64 = 16 << 10;
/// Least number of characters of a token.
const MIN_TOKEN: usize = 16;
/// Time that a client has to ask and to take what it gets.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks between two searches for new runs.
const LOOKS: u32 = 5;

/// What is shown now.
struct Shown {
    version: u64,
    data: Arc<str>,
}

struct Server {
    shown: Mutex<Shown>,
    changed: Condvar,
    clients: AtomicUsize,
    token: Option<String>,
}

impl Server {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        // Nothing is left half done under this lock.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn run(asked: &Serve, out: &mut Out) -> Result<u8, Error> {
    let is_loopback = asked.address.is_loopback();
    if let Some(token) = &asked.token
        && (token.len() < MIN_TOKEN
            || !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)))
    {
        return Err(Error::Asked(format!(
            "--token must have {MIN_TOKEN} characters or more, of A-Z a-z 0-9 - _"
        )));
    }
    if !is_loopback && asked.token.is_none() {
        return Err(Error::Asked(format!(
            "--address {} lets other machines ask: give --token SECRET, which they must know",
            asked.address
        )));
    }
    let mut runs = folder::read(&asked.folders.paths, asked.points)?;
    let names: Vec<String> = asked.folders.paths.iter().map(|path| path.display().to_string()).collect();
    let title = names.join(", ");
    let render = |runs: &[Named]| -> Arc<str> {
        page::data(&title, runs, asked.points, SystemTime::now()).to_string().into()
    };
    let refused = |error: std::io::Error| {
        Error::Asked(format!("cannot listen on {}:{}: {error}", asked.address, asked.port))
    };
    let listener = TcpListener::bind((asked.address, asked.port)).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let server = Arc::new(Server {
        shown: Mutex::new(Shown { version: 1, data: render(&runs) }),
        changed: Condvar::new(),
        clients: AtomicUsize::new(0),
        token: asked.token.clone(),
    });
    let query = asked.token.as_ref().map_or_else(String::new, |token| format!("?token={token}"));
    out.line(format_args!("http://{address}/{query}  (Ctrl-C ends it)"))?;
    out.flush()?;
    let for_clients = Arc::clone(&server);
    std::thread::spawn(move || accept(&listener, &for_clients));
    let mut looks = 0_u32;
    loop {
        std::thread::sleep(INTERVAL);
        looks = looks.wrapping_add(1);
        let mut has_changed = looks.is_multiple_of(LOOKS) && add_new(&asked.folders.paths, &mut runs);
        for (_, run) in &mut runs {
            if let Ok(run) = run {
                let before = run.events();
                // What cannot be read now may be later.
                while run.poll().unwrap_or(false) {}
                has_changed |= run.events() != before;
            }
        }
        // A status changes with time alone.
        if has_changed || looks.is_multiple_of(10 * LOOKS) {
            let data = render(&runs);
            let mut shown = server.shown();
            shown.version += 1;
            shown.data = data;
            server.changed.notify_all();
        }
    }
}

/// Adds the runs that were not there before. Returns whether there are any.
fn add_new(paths: &[std::path::PathBuf], runs: &mut Vec<Named>) -> bool {
    let before = runs.len();
    for path in paths {
        for folder in find_runs(path).unwrap_or_default() {
            let is_known = runs.iter().any(|(_, run)| run.as_ref().is_ok_and(|run| run.path() == folder));
            if !is_known && let Ok(run) = Run::open(&folder) {
                runs.push((folder::name_of(path, &folder, paths.len() > 1), Ok(run)));
            }
        }
    }
    runs.len() > before
}

fn accept(listener: &TcpListener, server: &Arc<Server>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Too many files are open, say: it passes.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if server.clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            server.clients.fetch_sub(1, Ordering::Relaxed);
            _ = answer(&stream, "503 Service Unavailable", "text/plain", b"too many clients\n");
            continue;
        }
        let server = Arc::clone(server);
        std::thread::spawn(move || {
            // A client that goes away is none of ours.
            _ = serve(&stream, &server);
            server.clients.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn serve(stream: &TcpStream, server: &Server) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some((target, host)) = question(stream)? else {
        return answer(stream, "400 Bad Request", "text/plain", b"GET alone is answered here\n");
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    if !is_own_host(&host) {
        return answer(stream, "421 Misdirected Request", "text/plain", b"this is not that host\n");
    }
    if let Some(token) = &server.token
        && !query
            .split('&')
            .any(|part| part.strip_prefix("token=").is_some_and(|given| is_same(given, token)))
    {
        return answer(stream, "403 Forbidden", "text/plain", b"the token is missing or wrong\n");
    }
    match path {
        "/" => {
            let page = page::live(&server.shown().data.clone());
            answer(stream, "200 OK", "text/html; charset=utf-8", page.as_bytes())
        }
        "/data" => {
            let data = Arc::clone(&server.shown().data);
            answer(stream, "200 OK", "application/json", data.as_bytes())
        }
        "/events" => events(stream, server),
        _ => answer(stream, "404 Not Found", "text/plain", b"there is / and /data and /events\n"),
    }
}

/// Sends an event for each change, until the client goes away.
fn events(mut stream: &TcpStream, server: &Server) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\nconnection: close\r\n\r\n")?;
    let mut seen = server.shown().version;
    loop {
        let until = Instant::now() + PATIENCE;
        let mut shown = server.shown();
        while shown.version == seen && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            shown = server.changed.wait_timeout(shown, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_new = shown.version != seen;
        seen = shown.version;
        drop(shown);
        // A comment shows whether the client is there yet.
        let said = if is_new { format!("data: {seen}\n\n") } else { ":\n\n".to_owned() };
        stream.write_all(said.as_bytes())?;
    }
}

/// Reads the target of a question and its host. `None` for what is no question that is answered here.
fn question(stream: &TcpStream) -> std::io::Result<Option<(String, String)>> {
    let mut lines = BufReader::new(stream.take(MAX_HEAD));
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut parts = line.split_whitespace();
    let (Some("GET"), Some(target), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let (target, mut host) = (target.to_owned(), String::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some((target, host)));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("host")
        {
            host = value.trim().to_owned();
        }
    }
}

/// Returns whether a host may be this one: an address, or `localhost`. No other name is, since anybody can make one lead here; whatever the
/// port, since a tunnel has another.
fn is_own_host(host: &str) -> bool {
    let is_ipv6 = host.starts_with('[');
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !is_ipv6 || name.ends_with(']') => match port.parse::<u16>() {
            Ok(_) => name,
            Err(_) => return false,
        },
        _ => host,
    };
    let address = if is_ipv6 { name.trim_start_matches('[').trim_end_matches(']') } else { name };
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Compares in a time that does not tell where texts differ.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

fn answer(mut stream: &TcpStream, status: &str, kind: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_localhost_and_no_other_name() {
        for own in ["127.0.0.1:6007", "localhost:8080", "LOCALHOST", "10.0.0.7", "[::1]:6007", "[::1]"] {
            assert!(is_own_host(own), "{own}");
        }
        for other in ["", "evil.example:6007", "localhost.evil.example:6007", "127.0.0.1:x", "a[::1]"] {
            assert!(!is_own_host(other), "{other}");
        }
    }
}
