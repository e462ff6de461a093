//! Files of wandb (`run-ID.wandb`), as its offline mode leaves them: what a run logged, its settings, its summary, what its machine did, and
//! how it ended.
//!
//! A file is a log of LevelDB (<https://github.com/google/leveldb/blob/main/doc/log_format.md>), with a head of its own, CRC-32 in the
//! place of CRC-32C, and a message of protobuf as each record. The messages are those of `wandb/proto/wandb_internal.proto` of wandb 0.2x,
//! as far as they are read here; their numbers are the same since 2020.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::event::catalog::training;
use forebay::{Fields, Record, Value};
use prost::Message;
use serde_json::{Map, Value as Json};

use super::rows::{Writer, modified, object, seconds, with_words};
use crate::error::Error;

/// The end of the names of such files.
const END: &str = "wandb";

/// The begin of a file: `:W&B`, a number, and the version 0.
const HEAD: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const BLOCK: usize = 32 << 10;

/// Largest record that is read, in bytes.
const MAX_RECORD: usize = 256 << 20;

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
    fn time(&self) -> SystemTime {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        // More nanoseconds than a second has are none.
        UNIX_EPOCH + Duration::new(seconds, u32::try_from(self.nanos).unwrap_or(0).min(999_999_999))
    }
}

impl Item {
    fn path(&self) -> Vec<&str> {
        match self.nested_key.is_empty() {
            true => vec![&self.key],
            false => self.nested_key.iter().map(String::as_str).collect(),
        }
    }

    fn value(&self) -> Option<Json> {
        serde_json::from_slice(&with_words(self.value_json.clone().into_bytes())).ok()
    }
}

/// Returns the files of wandb at a path: itself, or those of a folder and of the folders of runs below it, each with the place of its run
/// below that. A folder has one file, and names the run; of several, each names its own.
pub(super) fn find(path: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let is_one = |path: &Path| path.extension().is_some_and(|end| end == END);
    if !path.is_dir() {
        return Ok(if is_one(path) { vec![(path.to_owned(), PathBuf::new())] } else { Vec::new() });
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
            if has_several {
                place.push(file.file_stem().unwrap_or_default());
            }
            all.push((file, if is_alone { PathBuf::new() } else { place }));
        }
    }
    Ok(all)
}

/// Reads a file. Returns how many of its places were damaged.
pub(super) fn read(path: &Path, writer: &mut Writer) -> Result<u64, Error> {
    let failed = |error: io::Error| Error::Asked(format!("{}: {error}", path.display()));
    let open = || File::open(path).map(BufReader::new);
    // The settings and the summary are known at the end, and belong to the begin and the end of the run.
    let mut known = Known::default();
    let written = modified(&File::open(path).map_err(failed)?);
    let damaged = records(open().map_err(failed)?, &mut |record| known.see(record)).map_err(failed)?;
    known.begin(writer, written);
    let mut names = BTreeSet::new();
    let mut wrong = Ok(());
    records(open().map_err(failed)?, &mut |record| {
        let Ok(entry) = Entry::decode(record) else { return };
        if let Some(history) = entry.history {
            if let Err(what) = row(history, written, &mut names, writer) {
                wrong = Err(Error::Asked(format!("{}: {what}", path.display())));
            }
        } else if let Some(stats) = entry.stats {
            let time = stats.time.map_or(written, |time| time.time());
            for item in &stats.items {
                let name = format!("{SYSTEM}.{}", item.path().join("/").trim_start_matches("system."));
                if let Some(value) = item.value().and_then(|value| value.as_f64()) {
                    writer.value(&name, Value::Scalar(value), None, time);
                }
            }
        }
    })
    .map_err(failed)?;
    wrong?;
    known.end(&names, writer, written);
    Ok(damaged)
}

/// Adds the values of a step.
fn row(
    history: History,
    or_time: SystemTime,
    names: &mut BTreeSet<String>,
    writer: &mut Writer,
) -> Result<(), &'static str> {
    let mut all = Map::new();
    writer.left_out += history.items.iter().filter(|item| item.value().is_none()).count() as u64;
    change(&mut all, Some(Update { update: history.items, remove: Vec::new() }));
    if let Some(step) = history.step {
        all.entry("_step").or_insert_with(|| step.number.into());
    }
    names.extend(all.keys().cloned());
    object(&Json::Object(all), or_time, writer)
}

/// What a file says of its run as a whole.
#[derive(Default)]
struct Known {
    run: Begin,
    config: Map<String, Json>,
    summary: Map<String, Json>,
    exit: Option<Exit>,
    last: Option<SystemTime>,
}

impl Known {
    fn see(&mut self, record: &[u8]) {
        let Ok(entry) = Entry::decode(record) else { return };
        if let Some(mut run) = entry.run {
            change(&mut self.config, run.config.take());
            change(&mut self.summary, run.summary.take());
            // It comes again, with a part of it.
            if self.run.run_id.is_empty() {
                self.run = run;
            }
        }
        change(&mut self.config, entry.config);
        change(&mut self.summary, entry.summary);
        self.exit = entry.exit.or(self.exit.take());
        let of_stats = entry.stats.and_then(|stats| stats.time).map(|time| time.time());
        let of_row = entry.history.and_then(|history| {
            let item = history.items.iter().find(|item| item.path() == ["_timestamp"])?.value()?;
            item.as_f64().map(seconds)
        });
        self.last = self.last.max(of_stats).max(of_row);
    }

    fn began(&self, or_time: SystemTime) -> SystemTime {
        self.run.start.as_ref().map_or(or_time, Moment::time)
    }

    fn begin(&self, writer: &mut Writer, or_time: SystemTime) {
        let mut config = Fields::new();
        for (name, value) in self.config.iter().filter(|(name, _)| !name.starts_with('_')) {
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

    /// Says how the run ended, if it did. What it logged is known: of its summary, the rest is told.
    fn end(&self, logged: &BTreeSet<String>, writer: &mut Writer, or_time: SystemTime) {
        let Some(exit) = &self.exit else { return };
        let last = self.last.unwrap_or(or_time);
        let mut final_metrics = Fields::new();
        for (name, value) in &self.summary {
            if !name.starts_with('_') && !logged.contains(name) && is_plain(value) {
                final_metrics.set(name.clone(), value_of(value));
            }
        }
        let took = Duration::from_secs(u64::try_from(exit.runtime).unwrap_or(0));
        let total_duration = last.duration_since(self.began(or_time)).unwrap_or(took);
        writer.push(
            match exit.code {
                0 => Record::from(training::Completed { final_metrics, total_duration }),
                code => {
                    let error = format!("the process ended with exit code {code}");
                    Record::from(training::Failed { error, traceback: None, epoch: None })
                }
            }
            .with_time(last),
        );
    }
}

/// Sets and removes values, some of them within others.
fn change(all: &mut Map<String, Json>, update: Option<Update>) {
    let Some(Update { update, remove }) = update else { return };
    for item in &remove {
        if let [path @ .., last] = &item.path()[..]
            && let Some(within) =
                path.iter().try_fold(&mut *all, |all, name| all.get_mut(*name)?.as_object_mut())
        {
            within.remove(*last);
        }
    }
    for item in &update {
        let path = item.path();
        let (Some(value), [path @ .., last]) = (item.value(), &path[..]) else { continue };
        let mut within = &mut *all;
        for name in path {
            let next = within.entry(*name).or_insert(Json::Null);
            if !next.is_object() {
                *next = Json::Object(Map::new());
            }
            match next.as_object_mut() {
                Some(next) => within = next,
                None => return,
            }
        }
        within.insert((*last).to_owned(), value);
    }
}

/// Returns whether a value is a number, a text or the like, and no picture or table.
fn is_plain(value: &Json) -> bool {
    match value {
        Json::Object(fields) => !fields.contains_key("_type") && fields.values().all(is_plain),
        Json::Array(_) | Json::Null => false,
        _ => true,
    }
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
            Value::Fields(Box::new(fields.collect::<Fields>()))
        }
    }
}

/// Gives each record of a log to `take`. Returns how many places were damaged. A record without an end is being written, or was torn.
fn records(mut file: impl Read, take: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
    let (mut block, mut damaged, mut is_first) = (vec![0; BLOCK], 0, true);
    // The record that is read in parts; none, unless its first part was read.
    let mut parts: Option<Vec<u8>> = None;
    loop {
        let size = fill(&mut file, &mut block)?;
        let mut rest = &block[..size];
        if std::mem::take(&mut is_first) {
            rest = rest.strip_prefix(&HEAD).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it must be a file of wandb (version 0), and begins otherwise",
                )
            })?;
        }
        // What is behind the last record of a block has no room for another.
        while let Some((head, behind)) = rest.split_first_chunk::<7>() {
            let [a, b, c, d, low, high, kind] = *head;
            let length = usize::from(u16::from_le_bytes([low, high]));
            if (kind, length) == (0, 0) {
                // Room that was set aside.
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
            match (kind, &mut parts) {
                (1, _) => {
                    parts = None;
                    take(data);
                }
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
        assert!(records(&b"hello"[..], &mut |_| {}).is_err() && records(&b""[..], &mut |_| {}).is_err());
    }

    #[test]
    fn settings_within_others_are_set_and_removed() {
        let item = |path: &[&str], json: &str| Item {
            key: if path.len() == 1 { path[0].to_owned() } else { String::new() },
            nested_key: if path.len() > 1 {
                path.iter().map(|it| (*it).to_owned()).collect()
            } else {
                Vec::new()
            },
            value_json: json.to_owned(),
        };
        let mut all = Map::new();
        let update = vec![item(&["lr"], "0.5"), item(&["net", "width"], "3"), item(&["net", "loss"], "NaN")];
        change(&mut all, Some(Update { update, remove: Vec::new() }));
        let remove = vec![item(&["net", "width"], ""), item(&["none", "such"], "")];
        change(&mut all, Some(Update { update: vec![item(&["lr", "now"], "true")], remove }));
        assert_eq!(Json::Object(all), serde_json::json!({"lr": {"now": true}, "net": {"loss": "NaN"}}));
    }
}
