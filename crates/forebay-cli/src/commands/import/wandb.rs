//! Files of wandb (`run-ID.wandb`), as its offline mode leaves them: what a run logged, its settings, its summary, what its machine did, and
//! how it ended.
//!
//! A file is a log of LevelDB (<https://github.com/google/leveldb/blob/main/doc/log_format.md>), with a head of its own, CRC-32 in the
//! place of CRC-32C, and a message of protobuf as each record. The messages are those of `wandb/proto/wandb_internal.proto` of wandb 0.2x,
//! as far as they are read here; their numbers are the same since 2020.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::event::catalog::training;
use forebay::{Fields, Record, Value};
use prost::Message;
use serde_json::{Map, Value as Json};

use super::rows::{MAX_NAME, Writer, each_of, flat, modified, seconds, step_of, with_words};
use crate::error::Error;

/// The end of the names of such files.
const END: &str = "wandb";

/// The begin of a file: `:W&B`, a number, and the version 0.
const HEAD: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const BLOCK: usize = 32 << 10;

/// Largest record that is read, in bytes; and the most fields of its messages, each of which takes more memory than it has bytes.
const MAX_RECORD: usize = 64 << 20;
const MAX_FIELDS: u64 = 1_000_000;

/// Largest value that is read, in bytes of JSON: in memory, numbers of a list take 16 times as much.
const MAX_VALUE: usize = 8 << 20;

/// Memory for the settings, for the summary, and for the last values of all names, in bytes each; and for a row.
const MAX_KNOWN: usize = 8 << 20;
const MAX_ROW: usize = 64 << 20;

/// Names in a file are as the machine's are here: `system.cpu`.
const SYSTEM: &str = "system";

/// Time without a word after which a run has vanished: wandb measures the machine every 15 seconds.
const HEARTBEAT: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "2")]
    history: Option<History>,
    #[prost(message, optional, tag = "3")]
    summary: Option<Update>,
    #[prost(message, optional, tag = "5")]
    config: Option<Update>,
    #[prost(message, optional, tag = "7")]
    stats: Option<Stats>,
    #[prost(message, optional, tag = "17")]
    run: Option<Begin>,
    #[prost(message, optional, tag = "18")]
    exit: Option<Exit>,
}

#[derive(Clone, PartialEq, Message)]
struct History {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    step: Option<Step>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(int64, tag = "1")]
    number: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Update {
    #[prost(message, repeated, tag = "1")]
    update: Vec<Item>,
    #[prost(message, repeated, tag = "2")]
    remove: Vec<Item>,
}

/// A name, or one within others, and a value in JSON.
#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, repeated, tag = "2")]
    nested_key: Vec<String>,
    #[prost(string, tag = "16")]
    value_json: String,
}

#[derive(Clone, PartialEq, Message)]
struct Stats {
    #[prost(message, optional, tag = "2")]
    time: Option<Moment>,
    #[prost(message, repeated, tag = "3")]
    items: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Moment {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Begin {
    #[prost(string, tag = "1")]
    run_id: String,
    #[prost(message, optional, tag = "4")]
    config: Option<Update>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Update>,
    #[prost(string, tag = "8")]
    display_name: String,
    #[prost(message, optional, tag = "17")]
    start: Option<Moment>,
}

#[derive(Clone, PartialEq, Message)]
struct Exit {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(int32, tag = "2")]
    runtime: i32,
}

impl Moment {
    /// Returns it, unless it is too far away.
    fn time(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        // More nanoseconds than a second has are none.
        let nanos = u32::try_from(self.nanos).unwrap_or(0).min(999_999_999);
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
    }
}

impl Item {
    fn path(&self) -> Vec<&str> {
        match self.nested_key.is_empty() {
            true => vec![&self.key],
            false => self.nested_key.iter().map(String::as_str).collect(),
        }
    }

    /// Takes its value, unless that is no JSON, or too large.
    fn take_value(&mut self) -> Option<Json> {
        let text = std::mem::take(&mut self.value_json);
        if text.len() > MAX_VALUE {
            return None;
        }
        serde_json::from_slice(&with_words(text.into_bytes())).ok()
    }
}

/// Returns the files of wandb at a path: itself, whatever its name, or those of a folder and of the folders of runs below it, each with the
/// place of its run below that. The folder of one file names its run. Each of several files names its own, and so does one without a folder.
pub(super) fn find(path: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let is_one = |path: &Path| path.extension().is_some_and(|end| end.eq_ignore_ascii_case(END));
    if !path.is_dir() {
        return Ok(vec![(path.to_owned(), PathBuf::new())]);
    }
    let (mut found, mut folders) = (BTreeMap::<PathBuf, Vec<PathBuf>>::new(), vec![(path.to_owned(), 0)]);
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            // A link such as `latest-run` leads to one that is there already.
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < 2 {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_file() && is_one(&entry.path()) {
                found.entry(folder.clone()).or_default().push(entry.path());
            }
        }
    }
    let mut all = Vec::new();
    let is_alone = found.values().map(Vec::len).sum::<usize>() == 1;
    for (folder, mut files) in found {
        files.sort();
        let has_several = files.len() > 1;
        for file in files {
            let mut place = folder.strip_prefix(path).unwrap_or(Path::new("")).to_owned();
            if has_several || place.as_os_str().is_empty() {
                place.push(file.file_stem().unwrap_or_default());
            }
            all.push((file, if is_alone { PathBuf::new() } else { place }));
        }
    }
    Ok(all)
}

/// Checks that a file is one of wandb, as far as it was written.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Asked(format!("{}: {error}", path.display()));
    let mut head = [0; HEAD.len()];
    let size = fill(&mut File::open(path).map_err(failed)?, &mut head).map_err(failed)?;
    behind_head(&head[..size]).map(|_| ()).map_err(failed)
}

/// Reads a file, as long as it is now. Returns how many of its places were damaged.
pub(super) fn read(path: &Path, writer: &mut Writer) -> Result<u64, Error> {
    let failed = |error: io::Error| Error::Asked(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let written = modified(&file);
    read_from(&mut file, size, written, writer).map_err(failed)
}

fn read_from(
    file: &mut (impl Read + Seek),
    size: u64,
    written: SystemTime,
    writer: &mut Writer,
) -> io::Result<u64> {
    // The settings and the summary are known at the end, and belong to the begin and the end of the run.
    let mut known = Known::default();
    let damaged = records(BufReader::new(file.by_ref().take(size)), &mut |record| known.see(record))?;
    if known.records == 0 {
        return Ok(damaged + known.damaged);
    }
    known.begin(writer, written);
    let mut logged = Logged::default();
    file.rewind()?;
    records(BufReader::new(file.by_ref().take(size)), &mut |record| {
        // What is damaged was counted.
        let Ok(entry) = decode(record) else { return };
        if let Some(history) = entry.history {
            row(history, written, &mut logged, writer);
        } else if let Some(stats) = entry.stats {
            let time = stats.time.and_then(|time| time.time()).unwrap_or(written);
            for mut item in stats.items {
                let name = format!("{SYSTEM}.{}", item.path().join("/").trim_start_matches("system."));
                match item.take_value().and_then(|value| value.as_f64()).filter(|_| name.len() <= MAX_NAME) {
                    Some(value) => writer.value(&name, Value::Scalar(value), None, time),
                    None => writer.left_out += 1,
                }
            }
        }
    })?;
    writer.left_out += known.left_out;
    known.end(&logged, writer, written);
    Ok(damaged + known.damaged)
}

/// Adds the values of a step. Those whose step is none are left out.
fn row(history: History, or_time: SystemTime, logged: &mut Logged, writer: &mut Writer) {
    let mut all = Tree::new(MAX_ROW);
    writer.left_out += all.change(Update { update: history.items, remove: Vec::new() });
    if let Some(step) = history.step
        && all.fields.get("_step").and_then(step_of).is_none()
    {
        all.fields.insert("_step".to_owned(), step.number.into());
    }
    let count = all.fields.len() as u64;
    let added = each_of(&Json::Object(all.fields), or_time, &mut |name, value, step, time| match value {
        Some(value) => {
            logged.add(name, &value);
            writer.value(name, value, step, time);
        }
        None => {
            logged.add(name, &Value::Empty);
            writer.left_out += 1;
        }
    });
    if added.is_err() {
        writer.left_out += count;
    }
}

/// The last value of each name that was logged, as far as there is room. Of what is large, the name alone.
#[derive(Default)]
struct Logged {
    values: BTreeMap<String, Value>,
    bytes: usize,
}

impl Logged {
    fn add(&mut self, name: &str, value: &Value) {
        let value = match value {
            Value::Scalar(_) | Value::Integer(_) | Value::Bool(_) => value.clone(),
            Value::Text(text) if text.len() <= 100 => value.clone(),
            _ => Value::Empty,
        };
        if let Some(known) = self.values.get_mut(name) {
            *known = value;
            return;
        }
        self.bytes += name.len() + 200;
        if self.bytes <= MAX_KNOWN {
            self.values.insert(name.to_owned(), value);
        }
    }

    /// Returns whether a value of that name was logged; and the same one, as the last.
    fn has(&self, name: &str, value: &Value) -> (bool, bool) {
        let Some(known) = self.values.get(name) else { return (false, false) };
        let is_same = match (known, known.as_f64(), value.as_f64()) {
            (Value::Empty, ..) => true,
            (_, Some(known), Some(value)) => known == value || known.is_nan() && value.is_nan(),
            _ => known == value,
        };
        (true, is_same)
    }
}

/// Values within others, with a limit of the memory that they take.
#[derive(Debug)]
struct Tree {
    fields: Map<String, Json>,
    bytes: usize,
    max_bytes: usize,
}

impl Tree {
    fn new(max_bytes: usize) -> Self {
        Self { fields: Map::new(), bytes: 0, max_bytes }
    }

    /// Sets and removes values, some of them within others. Returns how many values had no room, were nested too deep, or are no JSON.
    fn change(&mut self, Update { update, remove }: Update) -> u64 {
        for item in &remove {
            if let [path @ .., last] = &item.path()[..]
                && let Some(within) =
                    path.iter().try_fold(&mut self.fields, |all, name| all.get_mut(*name)?.as_object_mut())
                && let Some(removed) = within.remove(*last)
            {
                self.bytes = self.bytes.saturating_sub(size_of_json(&removed) + last.len());
            }
        }
        update.into_iter().map(|item| u64::from(self.set(item).is_none())).sum()
    }

    fn set(&mut self, mut item: Item) -> Option<()> {
        let value = item.take_value()?;
        let path = item.path();
        if path.len() + depth_of(&value) > MAX_DEPTH {
            return None;
        }
        let size =
            size_of_json(&value) + path.iter().map(|name| name.len() + size_of::<Json>()).sum::<usize>();
        if self.bytes + size > self.max_bytes {
            return None;
        }
        let [path @ .., last] = &path[..] else { return None };
        let mut within = &mut self.fields;
        for name in path {
            let next = within.entry(*name).or_insert(Json::Null);
            if !next.is_object() {
                self.bytes = self.bytes.saturating_sub(size_of_json(next));
                *next = Json::Object(Map::new());
            }
            within = next.as_object_mut()?;
        }
        let before = within.insert((*last).to_owned(), value);
        self.bytes += size;
        if let Some(before) = before {
            // Its names are there once.
            let names = path.iter().chain([last]).map(|name| name.len() + size_of::<Json>()).sum::<usize>();
            self.bytes = self.bytes.saturating_sub(size_of_json(&before) + names);
        }
        Some(())
    }
}

/// Deepest value: that of a record, within the fields of an event.
const MAX_DEPTH: usize = Value::MAX_DEPTH - 4;

/// Returns how many values are within each other.
fn depth_of(value: &Json) -> usize {
    1 + match value {
        Json::Array(values) => values.iter().map(depth_of).max().unwrap_or(0),
        Json::Object(fields) => fields.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

/// Returns about how many bytes a value takes in memory.
fn size_of_json(value: &Json) -> usize {
    size_of::<Json>()
        + match value {
            Json::String(text) => text.len(),
            Json::Array(values) => values.iter().map(size_of_json).sum(),
            Json::Object(fields) => fields
                .iter()
                .map(|(name, value)| name.len() + 2 * size_of::<Json>() + size_of_json(value))
                .sum(),
            _ => 0,
        }
}

/// What a file says of its run as a whole.
struct Known {
    run: Begin,
    config: Tree,
    summary: Tree,
    exit: Option<Exit>,
    last: Option<SystemTime>,
    records: u64,
    /// Records that are no messages, or have too many fields.
    damaged: u64,
    /// Settings, and values of the summary, that have no room or no form.
    left_out: u64,
}

impl Default for Known {
    fn default() -> Self {
        let (config, summary) = (Tree::new(MAX_KNOWN), Tree::new(MAX_KNOWN));
        Self {
            run: Begin::default(),
            config,
            summary,
            exit: None,
            last: None,
            records: 0,
            damaged: 0,
            left_out: 0,
        }
    }
}

impl Known {
    fn see(&mut self, record: &[u8]) {
        self.records += 1;
        let Ok(entry) = decode(record) else {
            self.damaged += 1;
            return;
        };
        let (mut configs, mut summaries) = ([None, entry.config], [None, entry.summary]);
        if let Some(mut run) = entry.run {
            (configs[0], summaries[0]) = (run.config.take(), run.summary.take());
            // It comes again, with a part of it.
            if self.run.run_id.is_empty() {
                self.run = run;
            }
        }
        for (all, updates) in [(&mut self.config, configs), (&mut self.summary, summaries)] {
            self.left_out += updates.into_iter().flatten().map(|update| all.change(update)).sum::<u64>();
        }
        self.exit = entry.exit.or(self.exit.take());
        let of_stats = entry.stats.and_then(|stats| stats.time).and_then(|time| time.time());
        let of_row = entry.history.and_then(|mut history| {
            let item = history.items.iter_mut().find(|item| item.path() == ["_timestamp"])?;
            item.take_value()?.as_f64().and_then(seconds)
        });
        self.last = self.last.max(of_stats).max(of_row);
    }

    fn began(&self, or_time: SystemTime) -> SystemTime {
        self.run.start.as_ref().and_then(Moment::time).unwrap_or(or_time)
    }

    fn begin(&self, writer: &mut Writer, or_time: SystemTime) {
        let mut config = Fields::new();
        for (name, value) in self.config.fields.iter().filter(|(name, _)| !name.starts_with('_')) {
            // What wandb's server has is each value within an object.
            let value = value.get("value").filter(|_| value.get("desc").is_some()).unwrap_or(value);
            config.set(name.clone(), value_of(value));
        }
        let started = training::Started { run_id: self.run.run_id.clone(), config, model_type: None };
        let mut started = Record::from(started).with_field("heartbeat", HEARTBEAT);
        if !self.run.display_name.is_empty() {
            started = started.with_field("run_name", self.run.display_name.clone());
        }
        writer.push(started.with_time(self.began(or_time)));
    }

    /// Adds what the summary has beside the last values that were logged, and says how the run ended, if it did.
    fn end(&self, logged: &Logged, writer: &mut Writer, or_time: SystemTime) {
        let last = self.last.unwrap_or_else(|| self.began(or_time));
        for (name, value) in self.summary.fields.iter().filter(|(name, _)| !name.starts_with('_')) {
            flat(name, value, &mut |name, value| {
                let Some(value) = value else {
                    // A picture or the like that was logged is counted.
                    writer.left_out += u64::from(!logged.has(name, &Value::Empty).0);
                    return;
                };
                match logged.has(name, &value) {
                    (false, _) => writer.value(name, value, None, last),
                    // As a value of its own: it is no point of that curve.
                    (true, false) => writer.value(&format!("summary/{name}"), value, None, last),
                    (true, true) => {}
                }
            });
        }
        let Some(exit) = &self.exit else { return };
        let took = Duration::from_secs(u64::try_from(exit.runtime).unwrap_or(0));
        let total_duration = match self.last {
            Some(last) => last.duration_since(self.began(or_time)).unwrap_or(took),
            // The time of the file may be that of a copy.
            None => took,
        };
        let last = if self.last.is_none() { last.checked_add(took).unwrap_or(last) } else { last };
        writer.push(
            match exit.code {
                0 => Record::from(training::Completed { final_metrics: Fields::new(), total_duration }),
                code => {
                    let error = format!("the process ended with exit code {code}");
                    Record::from(training::Failed { error, traceback: None, epoch: None })
                }
            }
            .with_time(last),
        );
    }
}

/// Reads a record, unless its messages have too many fields: a field of two bytes becomes one of 70 in memory.
fn decode(record: &[u8]) -> Result<Entry, prost::DecodeError> {
    if fields_of(Kind::Entry, record).is_none_or(|fields| fields > MAX_FIELDS) {
        // No message: it has no end.
        return Entry::decode(&b"\xff"[..]);
    }
    Entry::decode(record)
}

/// Messages that have others within them.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Entry,
    History,
    Update,
    Stats,
    Begin,
    Item,
}

/// Returns how many fields a message has, with those of the messages within it. `None` for what is none:
/// <https://protobuf.dev/programming-guides/encoding/>.
fn fields_of(kind: Kind, mut rest: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !rest.is_empty() {
        count += 1;
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => _ = varint(&mut rest)?,
            1 => rest = rest.get(8..)?,
            5 => rest = rest.get(4..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (own, behind) = rest.split_at_checked(length)?;
                rest = behind;
                let inner = match (kind, key >> 3) {
                    (Kind::Entry, 2) => Kind::History,
                    (Kind::Entry, 3 | 5) | (Kind::Begin, 4 | 5) => Kind::Update,
                    (Kind::Entry, 7) => Kind::Stats,
                    (Kind::Entry, 17) => Kind::Begin,
                    (Kind::History, 1) | (Kind::Update, 1 | 2) | (Kind::Stats, 3) => Kind::Item,
                    _ => continue,
                };
                count += fields_of(inner, own)?;
            }
            _ => return None,
        }
    }
    Some(count)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Returns what is behind the head of a file; nothing of one whose head is not whole yet.
fn behind_head(begin: &[u8]) -> io::Result<&[u8]> {
    let head = &begin[..begin.len().min(HEAD.len())];
    if HEAD.starts_with(head) {
        return Ok(&begin[head.len()..]);
    }
    let why = format!("it must begin as a file of wandb does (version 0: {HEAD:02x?}), got {head:02x?}");
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

fn value_of(value: &Json) -> Value {
    match value {
        Json::Null => Value::Empty,
        Json::Bool(is) => Value::Bool(*is),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Scalar(number.as_f64().unwrap_or(f64::NAN)), Value::Integer)
        }
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(values) => Value::from(values.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), value_of(value)));
            Value::Fields(fields.collect::<Fields>())
        }
    }
}

/// Gives each record of a log to `take`. Returns how many places were damaged. A record without an end is being written, or was torn.
fn records(mut file: impl Read, take: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
    let (mut block, mut damaged, mut is_first) = (vec![0; BLOCK], 0, true);
    // The record that is read in parts; none, unless its first part was read.
    let mut parts: Option<Vec<u8>> = None;
    // Whether zeros came, which are the end, or a hole: something is behind them.
    let mut is_hole = false;
    loop {
        let size = fill(&mut file, &mut block)?;
        let mut rest = &block[..size];
        if std::mem::take(&mut is_first) {
            rest = behind_head(rest)?;
        }
        // What is behind the last record of a block has no room for another.
        while let Some((head, behind)) = rest.split_first_chunk::<7>() {
            let [a, b, c, d, low, high, kind] = *head;
            let length = usize::from(u16::from_le_bytes([low, high]));
            if (kind, length) == (0, 0) {
                // Room that was set aside.
                (parts, is_hole) = (None, true);
                break;
            }
            let Some((data, next)) = behind.split_at_checked(length) else {
                // The end of the file, or a length that is wrong.
                damaged += u64::from(size == BLOCK);
                parts = None;
                break;
            };
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&[kind]);
            checksum.update(data);
            if checksum.finalize() != u32::from_le_bytes([a, b, c, d]) {
                // Where the next record begins is not known: the next block does.
                damaged += 1;
                parts = None;
                break;
            }
            rest = next;
            damaged += u64::from(std::mem::take(&mut is_hole));
            if matches!(kind, 1 | 2) {
                // The record before it was torn: its writer was killed, and another one goes on.
                damaged += u64::from(parts.take().is_some());
            }
            match (kind, &mut parts) {
                (1, _) => take(data),
                (2, _) => parts = Some(data.to_vec()),
                (3, Some(parts)) if parts.len() + length <= MAX_RECORD => parts.extend_from_slice(data),
                (4, Some(own)) if own.len() + length <= MAX_RECORD => {
                    own.extend_from_slice(data);
                    take(own);
                    parts = None;
                }
                // Its begin was damaged, and counted; or it is too large.
                (3 | 4, _) => {
                    damaged += u64::from(parts.is_some());
                    parts = None;
                }
                _ => damaged += 1,
            }
        }
        if size < BLOCK {
            return Ok(damaged);
        }
    }
}

/// Reads until a block is full, or the file is at its end.
fn fill(file: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut size = 0;
    while size < block.len() {
        match file.read(&mut block[size..]) {
            Ok(0) => break,
            Ok(more) => size += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a log as LevelDB does.
    fn log(records: &[Vec<u8>]) -> Vec<u8> {
        let mut file = HEAD.to_vec();
        for record in records {
            let (mut rest, mut is_first) = (&record[..], true);
            loop {
                let mut room = BLOCK - file.len() % BLOCK;
                if room < 7 {
                    file.extend(std::iter::repeat_n(0, room));
                    room = BLOCK;
                }
                let (data, behind) = rest.split_at(rest.len().min(room - 7));
                let kind = match (is_first, behind.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                let mut checksum = crc32fast::Hasher::new();
                checksum.update(&[kind]);
                checksum.update(data);
                file.extend(checksum.finalize().to_le_bytes());
                file.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
                file.push(kind);
                file.extend(data);
                (rest, is_first) = (behind, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        file
    }

    fn read_all(file: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let mut all = Vec::new();
        let damaged = records(file, &mut |record| all.push(record.to_vec())).unwrap();
        (all, damaged)
    }

    #[test]
    fn records_are_read_over_blocks_and_what_is_damaged_is_passed_over_and_counted() {
        let wanted: Vec<Vec<u8>> = [0, 1, 100, 32_000, 700, 100_000, 3, 60_000]
            .iter()
            .map(|size| vec![*size as u8; *size])
            .collect();
        let file = log(&wanted);
        assert_eq!(read_all(&file), (wanted.clone(), 0));
        // A file that ends anywhere has its first records, and no damage.
        for end in [7, 8, 14, 120, 32_768, 40_000, 140_000, file.len() - 1] {
            let (all, damaged) = read_all(&file[..end]);
            assert!(wanted.starts_with(&all) && all.len() < wanted.len() && damaged == 0, "{end}: {damaged}");
        }
        // One byte that is wrong costs the records of its block.
        for place in (7..file.len()).step_by(997) {
            let mut file = file.clone();
            file[place] ^= 0x40;
            let (all, damaged) = read_all(&file);
            assert!(damaged <= 2 && all.iter().all(|record| wanted.contains(record)), "{place}: {damaged}");
            assert!(damaged > 0 || place > file.len() - BLOCK || all == wanted, "{place}");
        }
        assert!(records(&b"hello"[..], &mut |_| {}).is_err());
        // One that has just begun.
        for end in 0..=7 {
            assert_eq!(read_all(&file[..end]), (vec![], 0));
        }
    }

    #[test]
    fn a_record_that_is_torn_before_another_or_by_a_hole_counts() {
        let big = log(&[vec![1; 100_000]]);
        let behind = log(&[vec![2; 10]]).split_off(7);
        // Its first block, and then another writer.
        assert_eq!(read_all(&[&big[..BLOCK], &behind[..]].concat()), (vec![vec![2; 10]], 1));
        // A block of zeros instead of its second one; zeros at the end are none.
        let mut hole = [&big[..], &behind[..]].concat();
        hole[BLOCK..2 * BLOCK].fill(0);
        assert_eq!(read_all(&hole), (vec![vec![2; 10]], 1));
        assert_eq!(read_all(&[&log(&[vec![3; 5]])[..], &vec![0; BLOCK]].concat()), (vec![vec![3; 5]], 0));
        // A kind that there is not.
        let mut unknown = log(&[vec![4; 5]]);
        unknown[7 + 6] = 9;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&[9]);
        checksum.update(&[4; 5]);
        unknown[7..11].copy_from_slice(&checksum.finalize().to_le_bytes());
        assert_eq!(read_all(&unknown), (vec![], 1));
        // One that is too large.
        let large = log(&[vec![5; MAX_RECORD + 1], vec![6; 1]]);
        assert_eq!(read_all(&large), (vec![vec![6; 1]], 1));
    }

    fn item(path: &[&str], json: &str) -> Item {
        let nested_key =
            if path.len() > 1 { path.iter().map(|it| (*it).to_owned()).collect() } else { Vec::new() };
        let key = if path.len() == 1 { path[0].to_owned() } else { String::new() };
        Item { key, nested_key, value_json: json.to_owned() }
    }

    fn of_row(items: Vec<Item>, step: Option<i64>) -> Vec<u8> {
        let history = History { items, step: step.map(|number| Step { number }) };
        Entry { history: Some(history), ..Entry::default() }.encode_to_vec()
    }

    /// Imports a log. Returns its events as JSON, how many values were left out, and how many places were damaged.
    fn import(records: &[Vec<u8>]) -> (Vec<Json>, u64, u64) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path()).unwrap();
        let (file, written) = (log(records), UNIX_EPOCH + Duration::from_secs(1_000));
        let size = file.len() as u64;
        let damaged = read_from(&mut io::Cursor::new(file), size, written, &mut writer).unwrap();
        writer.end().unwrap();
        let lines = std::fs::read_to_string(folder.path().join("events.jsonl")).unwrap_or_default();
        (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), writer.left_out, damaged)
    }

    #[test]
    fn a_row_whose_step_is_none_takes_that_of_the_message_or_is_left_out() {
        for odd in ["1.5", "\"x\"", "null", "1e300"] {
            let items = || vec![item(&["_step"], odd), item(&["loss"], "0.5")];
            let good = of_row(vec![item(&["_step"], "3"), item(&["loss"], "0.25")], None);
            let (events, left_out, damaged) =
                import(&[of_row(items(), Some(7)), of_row(items(), None), good]);
            let steps: Vec<_> =
                events.iter().filter(|it| it["name"] == "loss").map(|it| it["step"].clone()).collect();
            assert_eq!((steps, left_out, damaged), (vec![7.into(), 3.into()], 2, 0), "{odd}");
        }
    }

    #[test]
    fn moments_that_are_too_far_away_are_none() {
        for far in ["1e22", "1.7e22", "1e300", "9.3e21"] {
            let (events, ..) =
                import(&[of_row(vec![item(&["_timestamp"], far), item(&["loss"], "0.5")], Some(1))]);
            assert_eq!(events[1]["time"], "1970-01-01T00:16:40.000000000Z", "{far}");
        }
        let far = |seconds| Some(Moment { seconds, nanos: i32::MAX });
        let stats = Stats { time: far(i64::MAX), items: vec![item(&["cpu"], "1")] };
        let run = Begin { run_id: "a".to_owned(), start: far(i64::MAX), ..Begin::default() };
        let records =
            [Entry { run: Some(run), ..Entry::default() }, Entry { stats: Some(stats), ..Entry::default() }];
        let (events, ..) = import(&records.map(|entry| entry.encode_to_vec()));
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn names_within_others_without_a_limit_are_left_out() {
        let deep = |value: &str| item(&vec![""; 100_000], value);
        let update = Update { update: vec![deep("1")], remove: vec![deep("")] };
        let (config, summary) = (Some(update.clone()), Some(update));
        let whole = Entry { config, summary, ..Entry::default() }.encode_to_vec();
        let json = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let long = item(&[&"x".repeat(20_000), "y"], "1");
        let (events, left_out, damaged) =
            import(&[whole, of_row(vec![deep("1"), item(&["a"], &json), long, item(&["b"], "2")], Some(1))]);
        assert_eq!((left_out, damaged), (5, 0));
        assert_eq!(events.iter().filter(|it| it["name"] == "b").count(), 1);
    }

    /// A record may become 36 times as large in memory, and a list of numbers 16 times.
    #[test]
    fn what_takes_much_more_memory_than_bytes_is_left_out() {
        let many = [&[0x12, 0x80, 0xb5, 0x18][..], &[0x0a, 0x00].repeat(200_000)].concat();
        assert_eq!(fields_of(Kind::Entry, &many), Some(200_001));
        let many = [&[0x12, 0x82, 0x89, 0x7a][..], &[0x0a, 0x00].repeat(1_000_001)].concat();
        assert!(decode(&many).is_err());
        let large = item(&["list"], &format!("[{}0]", "0,".repeat(MAX_VALUE / 2)));
        let text = item(&["text"], &format!("\"{}\"", "x".repeat(MAX_VALUE)));
        let (_, left_out, damaged) = import(&[many, of_row(vec![large, text, item(&["a"], "1")], Some(1))]);
        assert_eq!((left_out, damaged), (2, 1));
        let mut tree = Tree::new(10_000);
        let update = (0..1_000).map(|number| item(&[&number.to_string()], "[1,2,3]")).collect();
        let left_out = tree.change(Update { update, remove: Vec::new() });
        assert!(tree.bytes <= 10_000 && left_out > 800 && tree.fields.len() as u64 == 1_000 - left_out);
        // What is set again takes its place.
        for value in ["1", "2", "[3]"].repeat(1_000) {
            assert_eq!(tree.change(Update { update: vec![item(&["0"], value)], remove: Vec::new() }), 0);
        }
    }

    #[test]
    fn what_the_summary_has_beside_the_last_values_comes_whatever_the_end() {
        let row = of_row(
            vec![
                item(&["acc"], "0.5"),
                item(&["loss"], "NaN"),
                item(&["low"], "3"),
                item(&["_timestamp"], "2000"),
            ],
            Some(1),
        );
        let update = vec![
            item(&["acc"], "0.9"),
            item(&["loss"], "NaN"),
            item(&["low", "min"], "1"),
            item(&["best"], "0.98"),
            item(&["bad"], "1e999"),
        ];
        let summary = Some(Update { update, remove: Vec::new() });
        let summary = Entry { summary, ..Entry::default() }.encode_to_vec();
        let exit = |code| Entry { exit: Some(Exit { code, runtime: 9 }), ..Entry::default() }.encode_to_vec();
        for end in [vec![], vec![exit(0)], vec![exit(3)]] {
            let (events, left_out, damaged) =
                import(&[vec![row.clone(), summary.clone()], end.clone()].concat());
            let of = |name: &str| {
                let events = events.iter().filter(|it| it["name"] == name);
                events.filter_map(|it| it["scalar"].as_f64().or(it["integer"].as_f64())).collect::<Vec<_>>()
            };
            assert_eq!((of("acc"), of("summary/acc"), of("low/min")), (vec![0.5], vec![0.9], vec![1.0]));
            assert_eq!((of("best"), of("summary/loss"), of("summary/low")), (vec![0.98], vec![], vec![]));
            assert_eq!((left_out, damaged), (1, 0));
            assert_eq!(events.len(), 1 + 3 + 3 + end.len(), "{events:?}");
        }
        // Without a moment, the run took what it says.
        let (events, ..) = import(&[exit(0)]);
        assert_eq!(events[1]["fields"]["total_duration"].to_string(), "9.0", "{events:?}");
    }

    #[test]
    fn a_record_that_is_no_message_counts() {
        let (events, left_out, damaged) =
            import(&[vec![0x12, 0x05, 1], of_row(vec![item(&["a"], "1")], Some(1))]);
        assert_eq!((events.len(), left_out, damaged), (2, 0, 1));
        let stats = Stats { time: None, items: vec![item(&["cpu"], "\"x\"")] };
        let (_, left_out, _) = import(&[Entry { stats: Some(stats), ..Entry::default() }.encode_to_vec()]);
        assert_eq!(left_out, 1);
    }

    #[test]
    fn settings_within_others_are_set_and_removed() {
        let mut all = Tree::new(MAX_KNOWN);
        let update = vec![item(&["lr"], "0.5"), item(&["net", "width"], "3"), item(&["net", "loss"], "NaN")];
        assert_eq!(all.change(Update { update, remove: Vec::new() }), 0);
        let remove = vec![item(&["net", "width"], ""), item(&["none", "such"], "")];
        assert_eq!(all.change(Update { update: vec![item(&["lr", "now"], "true")], remove }), 0);
        assert_eq!(
            Json::Object(all.fields),
            serde_json::json!({"lr": {"now": true}, "net": {"loss": "NaN"}})
        );
    }
}
