//! Closed files, compressed by zstd, on a thread of their own: 100 MiB take some tenths of a second, in which no sink
//! would get anything.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::super::presence::{Found, Presence};
use super::JsonLinesSink;
use super::rotation::{Closed, closed, with};
use crate::sync::{self, Arc, JoinHandle, Mutex, Ordering, PlainU64};

impl JsonLinesSink {
    /// Compresses closed files (feature `zstd`): `events.jsonl.000001` becomes `events.jsonl.000001.zst`, about a tenth as
    /// large, which `zstd -d` and `zstdcat` read, and `forebay_history::JsonLinesHistory`. By default
    /// they stay as they are.
    ///
    /// A thread of its own does it, one file after the other, until the sink is dropped. A file keeps its old form until the
    /// new one is whole and synced to the disk: a process that ends meanwhile loses nothing, and the next one compresses
    /// what is left, from its first flush or closed file on. What goes wrong is reported once, as an error of the next flush, or
    /// of the batch that closes the next file, without a failed event; it is tried again when the next file is closed.
    ///
    /// Closed files need one writer: of several sinks on one path, in this process or others, one alone may compress or remove
    /// them. A file that another sink still writes to, or a form that another one has begun, is left as it is, which is such an error.
    pub fn compress_closed(mut self) -> Self {
        let shared = Arc::new(Shared::new());
        let mut compressor = Compressor { is_cleaned: false, is_blind: false, thread: None, shared };
        self.after_close = Some(Box::new(move |path, what| compressor.start(path, what)));
        self
    }
}

struct Compressor {
    /// True if what an earlier process left unfinished was looked after.
    is_cleaned: bool,
    /// The folder cannot be looked through, which was reported.
    is_blind: bool,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    /// 1 once the sink is dropped.
    is_over: PlainU64,
    /// Error since it was last asked for.
    error: Mutex<Option<io::Error>>,
    /// Numbers of files that could not be compressed. That was reported, once; they are tried again when a file is closed.
    failed: Mutex<BTreeSet<u64>>,
}

impl Compressor {
    fn start(&mut self, path: &Path, is_closed: bool) -> io::Result<()> {
        let before = self.shared.error.lock().take().map_or(Ok(()), Err);
        let is_idle = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if is_idle {
            let closed = match closed(path) {
                Ok(closed) => closed,
                Err(_) if self.is_blind => return before,
                Err(error) => {
                    self.is_blind = true;
                    return before.and(Err(error));
                }
            };
            self.is_blind = false;
            let failed = self.shared.failed.lock();
            let is_due =
                |closed: &Closed| !closed.is_compressed && (is_closed || !failed.contains(&closed.number));
            if closed.files.iter().any(is_due) || !self.is_cleaned && !closed.unfinished.is_empty() {
                drop(failed);
                self.is_cleaned = true;
                let (path, shared) = (path.to_owned(), Arc::clone(&self.shared));
                let body = move || {
                    if let Err(error) = shared.compress_all(&path) {
                        shared.note(error);
                    }
                };
                self.thread = Some(sync::spawn("forebay-zstd", None, body)?);
            }
        }
        before
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.shared.is_over.store(1, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It looks after every piece of a file.
            sync::join(thread);
        }
    }
}

impl Shared {
    fn new() -> Self {
        Self { is_over: PlainU64::new(0), error: Mutex::new(None), failed: Mutex::new(BTreeSet::new()) }
    }

    /// Compresses all files, those that are closed meanwhile included. It goes on behind one that fails.
    fn compress_all(&self, path: &Path) -> io::Result<()> {
        let mut files = closed(path)?;
        for unfinished in &files.unfinished {
            // Where that cannot be removed, its file cannot be compressed, which is reported.
            _ = fs::remove_file(unfinished);
        }
        let mut last = 0;
        while let Some(next) =
            files.files.into_iter().find(|closed| !closed.is_compressed && closed.number > last)
        {
            last = next.number;
            match self.compress(&next.path) {
                // Only so many are kept.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !next.path.exists() => {}
                // Reported now: there may be more to do for long.
                Err(error) => {
                    if self.failed.lock().insert(next.number) {
                        let said = format!("cannot compress {}: {error}", next.path.display());
                        self.note(io::Error::new(error.kind(), said));
                    }
                }
                Ok(()) => _ = self.failed.lock().remove(&next.number),
            }
            if self.is_over() {
                break;
            }
            files = closed(path)?;
            self.failed.lock().retain(|failed| files.files.iter().any(|closed| closed.number == *failed));
        }
        Ok(())
    }

    /// Notes an error. The first one since the last question is reported.
    fn note(&self, error: io::Error) {
        self.error.lock().get_or_insert(error);
    }

    fn compress(&self, path: &Path) -> io::Result<()> {
        self.compress_by(path, |plain, compressed| self.write_compressed(plain, compressed))
    }

    fn compress_by(
        &self,
        path: &Path,
        write: impl FnOnce(&File, &File) -> io::Result<Option<u64>>,
    ) -> io::Result<()> {
        let (unfinished, compressed) = (with(path, ".zst.new"), with(path, ".zst"));
        let plain = File::open(path)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        // Both are open to the end: nobody else's file gets their identity.
        let (of_plain, of_new) = (Presence::of(&plain)?, Presence::of(&file)?);
        // Another sink may take the file that an earlier process has left for this one, and make its own.
        let is_own = || matches!(of_new.look(&unfinished), Found::Own(_) | Found::Unknown);
        let give_up = |outcome: io::Result<()>| {
            if is_own() {
                let _ = fs::remove_file(&unfinished);
            }
            outcome
        };
        // Whoever may not read the one may not read the other.
        let permitted = plain.metadata().and_then(|data| file.set_permissions(data.permissions()));
        let bytes = match permitted.and_then(|()| write(&plain, &file)) {
            Ok(Some(bytes)) => bytes,
            // It was cancelled, which is no error; or on a full disk, where it would be in the way of all others.
            stopped => return give_up(stopped.map(drop)),
        };
        if let Err(error) = is_whole(&of_plain, path, bytes) {
            return give_up(Err(error));
        }
        if !is_own() {
            return Err(io::Error::other("another sink compresses it"));
        }
        if let Err(error) = fs::rename(&unfinished, &compressed) {
            return give_up(Err(error));
        }
        if let Some(folder) = path.parent() {
            crate::unix::sync_folder(folder)?;
        }
        if let Err(error) = is_whole(&of_plain, path, bytes) {
            // It was one too many, and was removed meanwhile; or it has grown, and stays.
            fs::remove_file(compressed)?;
            return if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_file(compressed),
            removed => removed,
        }
    }

    /// Returns how many bytes it has compressed, or `None` if it did not come to the end.
    fn write_compressed(&self, mut plain: &File, compressed: &File) -> io::Result<Option<u64>> {
        let mut encoder = zstd::Encoder::new(compressed, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        let mut bytes = 0;
        loop {
            if self.is_over() {
                return Ok(None);
            }
            let piece = io::copy(&mut plain.by_ref().take(PIECE), &mut encoder)?;
            bytes += piece;
            if piece < PIECE {
                break;
            }
        }
        encoder.finish()?.sync_all()?;
        Ok(Some(bytes))
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) != 0
    }
}

/// Fails if the file at the path is not the one that was compressed, or has more in it.
fn is_whole(plain: &Presence, path: &Path, bytes: u64) -> io::Result<()> {
    match plain.look(path) {
        Found::Own(length) if length == bytes => Ok(()),
        Found::Own(length) => {
            let said = format!("another sink writes to it: it had {bytes} bytes, and has {length}");
            Err(io::Error::other(said))
        }
        Found::Nothing => Err(io::ErrorKind::NotFound.into()),
        Found::Other | Found::Unknown => Err(io::Error::other("it was replaced meanwhile")),
    }
}

/// Bytes that are compressed at a stretch: some milliseconds.
const PIECE: u64 = 1 << 20;

/// Returns the text of a compressed file.
pub fn decode(file: File) -> io::Result<Box<dyn BufRead + Send>> {
    Ok(Box::new(BufReader::new(zstd::Decoder::new(file)?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;

    fn closed_file(folder: &Path) -> PathBuf {
        let path = folder.join("events.jsonl.000001");
        fs::write(&path, "{}\n".repeat(1000)).unwrap();
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_another_sink_compresses_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, shared) = (closed_file(folder.path()), Shared::new());
        let unfinished = with(&path, ".zst.new");
        let write = |plain: &File, compressed: &File| {
            let written = shared.write_compressed(plain, compressed);
            // The other one takes it for one of a process that died, and begins its own.
            fs::remove_file(&unfinished).unwrap();
            fs::write(&unfinished, "half").unwrap();
            written
        };
        let error = shared.compress_by(&path, write).unwrap_err();
        assert_eq!(error.to_string(), "another sink compresses it");
        assert_eq!(names(folder.path()), ["events.jsonl.000001", "events.jsonl.000001.zst.new"]);
        assert_eq!(fs::read_to_string(&unfinished).unwrap(), "half");
        // Also where it cannot be written.
        let write = |_: &File, _: &File| Err(io::ErrorKind::StorageFull.into());
        fs::remove_file(&unfinished).unwrap();
        assert!(shared.compress_by(&path, write).is_err());
        assert_eq!(names(folder.path()), ["events.jsonl.000001"]);
    }

    #[test]
    fn a_file_that_another_sink_writes_to_keeps_its_form() {
        let folder = tempfile::tempdir().unwrap();
        let (path, shared) = (closed_file(folder.path()), Shared::new());
        let write = |plain: &File, compressed: &File| {
            let written = shared.write_compressed(plain, compressed);
            OpenOptions::new().append(true).open(&path)?.write_all(b"late\n")?;
            written
        };
        let error = shared.compress_by(&path, write).unwrap_err();
        assert_eq!(error.to_string(), "another sink writes to it: it had 3000 bytes, and has 3005");
        assert_eq!(names(folder.path()), ["events.jsonl.000001"]);
        assert_eq!(fs::metadata(&path).unwrap().len(), 3005);
        shared.compress(&path).unwrap();
        assert_eq!(names(folder.path()), ["events.jsonl.000001.zst"]);
    }
}
