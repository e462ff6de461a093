//! `forebay serve`: the page of a report, live. It answers five questions by HTTP/1.1 and changes nothing:
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page |
//! | `/index?since=VERSION` | the runs that have changed since: status, settings, names of series; no points |
//! | `/data?name=NAME&runs=ID:VERSION,..` | the points of one series of these runs, where they have changed since |
//! | `/media?run=ID` | its pictures, distributions and whole texts |
//! | `/events` | server-sent events: the version now, and each one that comes |
//!
//! So a page asks for what it shows and has not. Paths are compared, never opened, so none leads out of the folder. The host that a browser
//! names must be the one that it was told: else a page of somebody else could ask under a name that it has made lead here (DNS rebinding).
//! `HEAD` gets the head alone.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_history::Run;
use forebay_sync::unix::host_name;

use crate::args::Serve;
use crate::broker;
use crate::error::Error;
use crate::folder::Budget;
use crate::out::Out;
use crate::progress::Progress;
use crate::{folder, page};

/// Clients at once.
const MAX_CLIENTS: usize = 32;
/// Clients among these that wait for events. The others ask, and go.
const MAX_WAITING: usize = 24;
/// Bytes of a question. Browsers send about one kB, and the page names the runs that it asks for.
const MAX_HEAD: u64 = 32 << 10;
/// Least number of characters of a token.
const MIN_TOKEN: usize = 16;
/// Time that a client has to ask, and to take each piece of what it gets.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of such a piece.
const PIECE: usize = 64 << 10;
/// Time between two looks at the files, at least.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks between two searches for new runs.
const LOOKS: u32 = 5;
/// Runs that may have a file open between two looks.
const MAX_OPEN: usize = 64;
/// Runs whose pictures and distributions are kept: those that were asked for last. Each has 32 MB of pictures at most.
const MAX_MEDIA: usize = 4;

struct Server {
    title: String,
    paths: Vec<PathBuf>,
    /// Points that a curve keeps. The thread that looks at the files alone makes them fewer.
    ///
    /// No lock is taken for it: it is asked for while the state of a run is locked.
    max_points: AtomicUsize,
    token: Option<String>,
    /// Runs stay where they are: their place is their id.
    runs: Mutex<Vec<Arc<Followed>>>,
    /// The first version there was. One before it is that of another server.
    first: u64,
    /// The last one whose changes can all be seen.
    version: Mutex<u64>,
    changed: Condvar,
    clients: AtomicUsize,
    waiting: AtomicUsize,
    /// The runs whose pictures were asked for last, by their ids; the last one is the last.
    media: Mutex<Vec<(usize, Run)>>,
}

/// Run that is followed.
struct Followed {
    name: String,
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    run: Result<Run, Error>,
    /// When it changed last.
    version: u64,
    /// What the index says of it.
    index: Arc<str>,
}

/// Nothing is left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    let refused = |error: io::Error| {
        let hint =
            if error.kind() == io::ErrorKind::AddrInUse { " (--port 0 takes one that is free)" } else { "" };
        Error::Asked(format!("cannot listen on {}:{}: {error}{hint}", asked.address, asked.port))
    };
    // Before all that takes long.
    let listener = TcpListener::bind((asked.address, asked.port)).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    // Pages remember versions across a restart of the server, so a new server begins above those of the last one.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let first = u64::try_from(now).unwrap_or(1);
    let mut budget = Budget::new(asked.points);
    let server = Arc::new(Server {
        title: folder::title(&asked.folders.paths),
        paths: asked.folders.paths.clone(),
        max_points: AtomicUsize::new(budget.max_points),
        token: asked.token.clone(),
        runs: Mutex::new(Vec::new()),
        first,
        version: Mutex::new(first),
        changed: Condvar::new(),
        clients: AtomicUsize::new(0),
        waiting: AtomicUsize::new(0),
        media: Mutex::new(Vec::new()),
    });
    let folders = folder::find(&asked.folders.paths)?;
    let progress = Progress::of(folders.iter().map(|(_, folder)| folder));
    let followed = folders.into_iter().enumerate();
    let followed = followed.map(|(id, (name, folder))| Arc::new(server.open(id, name, folder)));
    *lock(&server.runs) = followed.collect();
    // Once before anybody can ask.
    server.look(&mut budget, true, true);
    drop(progress);
    // Where it listens on all addresses, others know it by its name.
    let host = match address.ip().is_unspecified() {
        true => format!("{}:{}", host_name(), address.port()),
        false => address.to_string(),
    };
    let query = asked.token.as_ref().map_or_else(String::new, |token| format!("?token={token}"));
    let place = format!("http://{host}/{query}");
    match asked.json {
        true => out.json(serde_json::json!({ "address": place }))?,
        false => out.line(format_args!("{place}  (Ctrl-C ends it)"))?,
    }
    out.flush()?;
    let for_clients = Arc::clone(&server);
    std::thread::Builder::new().spawn(move || accept(&listener, &for_clients)).map_err(refused)?;
    let (mut looks, mut took) = (0_u32, Duration::ZERO);
    loop {
        // Of many runs, less often: a tenth of the time at most is spent on them.
        std::thread::sleep(INTERVAL.max(9 * took));
        looks = looks.wrapping_add(1);
        let began = Instant::now();
        let has_new = looks.is_multiple_of(LOOKS) && server.add_new();
        server.look(&mut budget, looks.is_multiple_of(2 * LOOKS), has_new);
        took = began.elapsed();
    }
}

impl Server {
    /// Opens a run, whose files are looked at later.
    fn open(&self, id: usize, name: String, folder: PathBuf) -> Followed {
        let (run, version) = (self.open_run(&folder), *lock(&self.version) + 1);
        let index = page::run_of(id, &name, run.as_ref(), None, SystemTime::now()).to_string().into();
        Followed { name, folder, state: Mutex::new(State { run, version, index }) }
    }

    fn open_run(&self, folder: &Path) -> Result<Run, Error> {
        Ok(folder::open_live(folder)?.with_max_points(self.max_points()))
    }

    fn max_points(&self) -> usize {
        // Relaxed: one that is older is as good.
        self.max_points.load(Ordering::Relaxed)
    }

    /// Has all curves keep fewer points, while all together are too many.
    fn fit(&self, budget: &mut Budget, followed: &[Arc<Followed>]) {
        let kept = || followed.iter().map(|it| lock(&it.state).run.as_ref().map_or(0, Run::kept)).sum();
        while budget.is_over(kept()) {
            let max_points = budget.max_points;
            self.max_points.store(max_points, Ordering::Relaxed);
            followed
                .iter()
                .for_each(|it| lock(&it.state).run.iter_mut().for_each(|run| run.limit(max_points)));
        }
    }

    /// Looks at the files of all runs, and tells of what has changed: what a status is, which changes with time alone, if asked to.
    fn look(&self, budget: &mut Budget, with_status: bool, mut has_changed: bool) {
        let next = *lock(&self.version) + 1;
        let followed = lock(&self.runs).clone();
        for (id, it) in followed.iter().enumerate() {
            loop {
                // In pieces: who asks waits for one of them.
                let mut state = lock(&it.state);
                if state.run.is_err() {
                    state.run = self.open_run(&it.folder);
                }
                let before = state.run.as_ref().ok().map(|run| (run.events(), run.not_read()));
                let has_more = match state.run.as_mut().map(Run::poll) {
                    Ok(Ok(has_more)) => has_more,
                    // What is not there any more is a run no more, until there is one again.
                    Ok(Err(error)) if !broker::is_stream(&it.folder) && !it.folder.exists() => {
                        state.run = Err(error.into());
                        false
                    }
                    // What cannot be read now may be later.
                    _ => false,
                };
                if let Ok(run) = &mut state.run
                    && followed.len() > MAX_OPEN
                    && !has_more
                {
                    run.release();
                }
                let after = state.run.as_ref().ok().map(|run| (run.events(), run.not_read()));
                if with_status || before != after {
                    let index = page::run_of(id, &it.name, state.run.as_ref(), None, SystemTime::now());
                    let index = index.to_string();
                    if *index != *state.index {
                        (state.index, state.version) = (index.into(), next);
                        has_changed = true;
                    }
                }
                if !has_more {
                    break;
                }
            }
        }
        self.fit(budget, &followed);
        if has_changed {
            *lock(&self.version) = next;
            self.changed.notify_all();
        }
    }

    /// Adds the runs that were not there before. Returns whether there are any.
    fn add_new(&self) -> bool {
        let known: HashSet<PathBuf> = lock(&self.runs).iter().map(|it| it.folder.clone()).collect();
        let new = folder::find_new(&self.paths, &known);
        let has_new = !new.is_empty();
        for (name, folder) in new {
            // This thread alone adds runs.
            let id = lock(&self.runs).len();
            let followed = Arc::new(self.open(id, name, folder));
            lock(&self.runs).push(followed);
        }
        has_new
    }

    /// Returns the runs that have changed since a version, and that of the answer.
    fn index(&self, since: u64) -> String {
        // Before the runs are looked at: what changes meanwhile is asked for again.
        let version = *lock(&self.version);
        let is_whole = since < self.first;
        let runs: Vec<Arc<str>> = lock(&self.runs)
            .iter()
            .filter_map(|it| {
                let state = lock(&it.state);
                (is_whole || state.version > since).then(|| Arc::clone(&state.index))
            })
            .collect();
        let (title, read) = (serde_json::Value::from(self.title.as_str()), page::date(SystemTime::now()));
        format!(
            r#"{{"version":{version},"whole":{is_whole},"title":{title},"read":"{read}","runs":[{}]}}"#,
            runs.join(",")
        )
    }

    /// Returns the points of a series of these runs, each unless it has not changed since a version.
    fn data(&self, name: &str, asked: &str) -> String {
        let version = *lock(&self.version);
        let runs = lock(&self.runs).clone();
        let mut found = serde_json::Map::new();
        for asked in asked.split(',') {
            let (id, since) = asked.split_once(':').unwrap_or((asked, "0"));
            let (Ok(id), Ok(since)) = (id.parse::<usize>(), since.parse::<u64>()) else { continue };
            let Some(it) = runs.get(id).filter(|_| !found.contains_key(&id.to_string())) else { continue };
            let state = lock(&it.state);
            if state.version > since
                && let Some(series) = state.run.as_ref().ok().and_then(|run| run.series(name))
            {
                found.insert(id.to_string(), page::series_of(series, self.max_points()));
            }
        }
        format!(r#"{{"version":{version},"runs":{}}}"#, serde_json::Value::Object(found))
    }
}

/// Reads the pictures, distributions and whole texts of a run: from its begin, unless it was asked for before.
fn media(server: &Server, id: usize) -> String {
    let Some(followed) = lock(&server.runs).get(id).cloned() else { return "[]".to_owned() };
    // One at a time: what is read is much.
    let mut kept = lock(&server.media);
    let known = kept.iter().position(|(known, _)| *known == id).map(|place| kept.remove(place).1);
    // Curves are answered elsewhere.
    let open = || folder::open_run(&followed.folder).map(|run| run.with_media().with_max_points(0));
    let Ok(mut run) = known.map_or_else(open, Ok) else { return "[]".to_owned() };
    // What cannot be read now may be later.
    while run.poll().unwrap_or(false) {}
    run.release();
    let answer = page::media_of(&run);
    if kept.len() >= MAX_MEDIA {
        kept.remove(0);
    }
    kept.push((id, run));
    answer.to_string()
}

/// One of a number of places, held.
struct Slot<'a>(&'a AtomicUsize);

impl<'a> Slot<'a> {
    fn take(taken: &'a AtomicUsize, max: usize) -> Option<Self> {
        // Relaxed: it counts, and nothing else is seen by it.
        // A slot gives back what was added, also where there is none left.
        let slot = Self(taken);
        (taken.fetch_add(1, Ordering::Relaxed) < max).then_some(slot)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, server: &Arc<Server>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Too many files are open, say: it passes.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let stream = Arc::new(stream);
        let (server, own) = (Arc::clone(server), Arc::clone(&stream));
        if server.clients.load(Ordering::Relaxed) >= MAX_CLIENTS {
            refuse(&stream);
            continue;
        }
        let spawned = std::thread::Builder::new().spawn(move || {
            // Given back also by a panic.
            match Slot::take(&server.clients, MAX_CLIENTS) {
                // A client that goes away is none of ours.
                Some(_slot) => _ = serve(&own, &server),
                None => refuse(&own),
            }
        });
        if spawned.is_err() {
            refuse(&stream);
        }
    }
}

/// Says that there are too many clients. What one asks is read first, as far as it is there: to close before that would take back the answer.
fn refuse(stream: &TcpStream) {
    _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    _ = { stream }.read(&mut [0; 4096]);
    _ = answer(stream, "503 Service Unavailable", "text/plain", b"too many clients\n", true);
}

fn serve(stream: &TcpStream, server: &Server) -> io::Result<()> {
    let Some(Question { is_head, target, host }) = question(stream)? else {
        let why = b"GET and HEAD are answered here\n";
        return answer(stream, "400 Bad Request", "text/plain", why, true);
    };
    let answer = |status, kind, body: &[u8]| answer(stream, status, kind, body, !is_head);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let given = |name: &str| {
        let mut parts = query.split('&').filter_map(|part| part.split_once('='));
        parts.find(|(given, _)| *given == name).map(|(_, value)| value)
    };
    if let Some(token) = &server.token
        && !given("token").is_some_and(|given| is_same(given, token))
    {
        return answer("403 Forbidden", "text/plain", b"the token is missing or wrong\n");
    }
    // Who knows the token was told the name as well.
    if server.token.is_none() && !is_own_host(&host) {
        return answer("421 Misdirected Request", "text/plain", b"this is not that host\n");
    }
    let json = |body: String| answer("200 OK", "application/json", body.as_bytes());
    match path {
        "/" => answer("200 OK", "text/html; charset=utf-8", page::live(&server.title).as_bytes()),
        "/index" => json(server.index(given("since").and_then(|since| since.parse().ok()).unwrap_or(0))),
        "/data" => {
            json(server.data(&decode(given("name").unwrap_or_default()), given("runs").unwrap_or_default()))
        }
        "/media" => match given("run").and_then(|run| run.parse().ok()) {
            Some(run) => json(media(server, run)),
            None => answer("400 Bad Request", "text/plain", b"run must be the number of a run\n"),
        },
        "/events" if is_head => write(stream, EVENTS.as_bytes()),
        "/events" => match Slot::take(&server.waiting, MAX_WAITING) {
            Some(_slot) => events(stream, server),
            None => answer("503 Service Unavailable", "text/plain", b"too many clients wait\n"),
        },
        _ => {
            answer("404 Not Found", "text/plain", b"there is / and /index and /data and /media and /events\n")
        }
    }
}

/// Head of the answer that has events.
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\nconnection: close\r\n\r\n";

/// Sends the version, and each one that comes, until the client goes away.
fn events(stream: &TcpStream, server: &Server) -> io::Result<()> {
    let mut seen = *lock(&server.version);
    write(stream, format!("{EVENTS}data: {seen}\n\n").as_bytes())?;
    loop {
        let until = Instant::now() + PATIENCE;
        let mut version = lock(&server.version);
        while *version == seen && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            version = server.changed.wait_timeout(version, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_new = *version != seen;
        seen = *version;
        drop(version);
        // A comment shows whether the client is there yet.
        let said = if is_new { format!("data: {seen}\n\n") } else { ":\n\n".to_owned() };
        write(stream, said.as_bytes())?;
    }
}

/// Reads what a client sends, until its time is over: a byte now and then gains none.
struct InTime<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl Read for InTime<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(bytes)
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        let (until, mut rest) = (Instant::now() + PATIENCE, piece);
        while !rest.is_empty() {
            stream.set_write_timeout(Some(left(until)?))?;
            match stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(size) => rest = &rest[size..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Returns a value of a query as its sender meant it: <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let hex = hex.filter(|hex| *first == b'%' && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Question of a client.
struct Question {
    /// Whether the head of the answer is asked for alone.
    is_head: bool,
    target: String,
    host: String,
}

/// Reads a question. `None` for what is none that is answered here.
fn question(stream: &TcpStream) -> io::Result<Option<Question>> {
    let in_time = InTime { stream, until: Instant::now() + PATIENCE };
    let mut lines = BufReader::new(in_time.take(MAX_HEAD));
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut parts = line.split_whitespace();
    let (Some(method @ ("GET" | "HEAD")), Some(target), Some(_)) = (parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let is_head = method == "HEAD";
    let (target, mut host) = (target.to_owned(), String::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(Question { is_head, target, host }));
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

fn answer(stream: &TcpStream, status: &str, kind: &str, body: &[u8], has_body: bool) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n",
        body.len()
    );
    write(stream, head.as_bytes())?;
    if has_body { write(stream, body) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_through_a_query_as_it_was() {
        for (text, name) in [
            ("loss", "loss"),
            ("a%2Fb%20c", "a/b c"),
            ("%C3%BC", "\u{fc}"),
            ("%", "%"),
            ("%zz%4", "%zz%4"),
            ("%+1", "%+1"),
        ] {
            assert_eq!(decode(text), name);
        }
    }

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
