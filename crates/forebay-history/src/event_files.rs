//! Event files of a folder, read as they grow: those of TensorBoard, PyTorch, tensorboardX and forebay.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use forebay::{Record, Value};
use tfevents::{EventContent, OnDamage, ReadError, Reader};

use crate::series::Point;

/// What all event files have in their names.
const MARK: &str = ".tfevents.";

/// Value of an event file.
#[derive(Debug)]
pub(crate) enum Shown<'a> {
    /// A number of a tag.
    Point(&'a str, Point),
    /// What is no number.
    Record(Record),
}

/// Follower of the event files of one folder, in the order of their names, which begin with the time. TensorBoard leaves a file behind for
/// good once there is a later one; this one goes on with all, since several writers may share a folder.
#[derive(Debug)]
pub(crate) struct EventFiles {
    folder: PathBuf,
    files: BTreeMap<PathBuf, Reader<File>>,
    /// The plugin of each tag that no value says by itself.
    texts: HashSet<String>,
}

impl EventFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, files: BTreeMap::new(), texts: HashSet::new() }
    }

    /// Returns whether a file has the name of an event file.
    pub(crate) fn is_one(name: &std::ffi::OsStr) -> bool {
        name.to_str().is_some_and(|name| name.contains(MARK))
    }

    /// Gives every value that is new to `take`. Returns how many events there were. Ends after about `max_events`.
    pub(crate) fn look(&mut self, max_events: u64, mut take: impl FnMut(Shown<'_>)) -> io::Result<u64> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if Self::is_one(&entry.file_name()) && !self.files.contains_key(&entry.path()) {
                match File::open(entry.path()) {
                    Ok(file) => {
                        self.files.insert(entry.path(), Reader::new(file).on_damage(OnDamage::Resync));
                    }
                    // Somebody cleans up.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut events = 0;
        for reader in self.files.values_mut() {
            while events < max_events {
                let event = match reader.next_event() {
                    Ok(Some(event)) => event,
                    Ok(None) => break,
                    Err(ReadError::Io(error)) => return Err(error),
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                };
                events += 1;
                let EventContent::Summary(values) = event.content else { continue };
                for value in values {
                    take(shown_of(&value, &mut self.texts, event.step, nanos(event.wall_time)));
                }
            }
        }
        Ok(events)
    }

    /// Returns how many places of all files were damaged.
    pub(crate) fn damaged(&self) -> u64 {
        self.files.values().map(|reader| reader.skipped().places).sum()
    }
}

/// Returns what is shown of a value. `texts` are the tags of texts so far: the first value of a tag alone may say that it is one.
fn shown_of<'a>(
    value: &tfevents::Value<'a>,
    texts: &mut HashSet<String>,
    step: i64,
    unix_nanos: u64,
) -> Shown<'a> {
    let plugin = value.plugin();
    if plugin == Some("text") && !texts.contains(value.tag) {
        texts.insert(value.tag.to_owned());
    }
    if texts.contains(value.tag) {
        let text = text_of(value).map_or(Value::Empty, |text| Value::from(&*text));
        return Shown::Record(record(value.tag, text, step, unix_nanos));
    }
    match value.scalar().filter(|_| plugin != Some("hparams")) {
        Some(number) => Shown::Point(value.tag, Point { step, unix_nanos, value: number }),
        None => Shown::Record(record(value.tag, Value::Empty, step, unix_nanos)),
    }
}

fn text_of(value: &tfevents::Value<'_>) -> Option<String> {
    let tfevents::ValueContent::Tensor(tensor) = &value.content else { return None };
    let first = tensor.strings().next()?;
    Some(String::from_utf8_lossy(first).into_owned())
}

pub(crate) fn record(tag: &str, value: Value, step: i64, unix_nanos: u64) -> Record {
    let time = std::time::UNIX_EPOCH + Duration::from_nanos(unix_nanos);
    Record::with_value(tag.to_owned(), value).with_signed_step(step).with_time(time)
}

/// Returns a moment in nanoseconds; 0 for one before 1970, or none.
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).max(0.0) as u64
}
