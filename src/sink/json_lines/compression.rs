//! Closed files, compressed by zstd, on a thread of their own: 100 MiB take some tenths of a second, in which no sink
//! would get anything.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{JsonLinesSink, closed};
use crate::sync::{self, Arc, JoinHandle, Mutex, Ordering, PlainU64};

impl JsonLinesSink {
    /// Compresses closed files (feature `zstd`): `events.jsonl.000001` becomes `events.jsonl.000001.zst`, about a tenth as
    /// large, which `zstd -d` and `zstdcat` read, and [`JsonLinesHistory`](crate::history::JsonLinesHistory). By default
    /// they stay as they are.
    ///
    /// A thread of its own does it, one file after the other, until the sink is dropped. A file keeps its old form until the
    /// new one is whole and synced to the disk: a process that ends meanwhile loses nothing, and the next one compresses
    /// what is left, from its first flush or closed file on. What goes wrong is told as an error of the next flush, or of
    /// the batch that closes the next file, without a failed event.
    pub fn compress_closed(mut self) -> Self {
        let shared = Arc::new(Shared { is_over: PlainU64::new(0), error: Mutex::new(None) });
        let mut compressor = Compressor { path: self.path.clone(), thread: None, shared };
        self.after_close = Some(Box::new(move || compressor.start()));
        self
    }
}

struct Compressor {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    /// 1 once the sink is dropped.
    is_over: PlainU64,
    /// What went wrong since it was last asked.
    error: Mutex<Option<io::Error>>,
}

impl Compressor {
    fn start(&mut self) -> io::Result<()> {
        let before = self.shared.error.lock().take().map_or(Ok(()), Err);
        let is_idle = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if is_idle && closed(&self.path)?.iter().any(|closed| !closed.is_compressed) {
            let (path, shared) = (self.path.clone(), Arc::clone(&self.shared));
            let body = move || {
                if let Err(error) = shared.compress_all(&path) {
                    shared.note(error);
                }
            };
            self.thread = Some(sync::spawn("forebay-zstd", None, body)?);
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
    /// Compresses all files, those that are closed meanwhile included. It goes on behind one that fails.
    fn compress_all(&self, path: &Path) -> io::Result<()> {
        let mut last = 0;
        while let Some(next) =
            closed(path)?.into_iter().find(|closed| !closed.is_compressed && closed.number > last)
        {
            last = next.number;
            match self.compress(&next.path) {
                // Only so many are kept.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !next.path.exists() => {}
                // Told now: there may be more to do for long.
                Err(error) => self.note(error),
                Ok(()) => {}
            }
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// The first error since it was last asked is told.
    fn note(&self, error: io::Error) {
        self.error.lock().get_or_insert(error);
    }

    fn compress(&self, path: &Path) -> io::Result<()> {
        let with = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let unfinished = with(".zst.new");
        match self.write_compressed(File::open(path)?, File::create(&unfinished)?) {
            Ok(true) => fs::rename(unfinished, with(".zst")).and_then(|()| fs::remove_file(path)),
            // It was told to end, which is no error; or on a full disk, where it would be in the way of all others.
            stopped => {
                let _ = fs::remove_file(unfinished);
                stopped.map(|_| ())
            }
        }
    }

    /// Whether it came to the end.
    fn write_compressed(&self, mut plain: File, compressed: File) -> io::Result<bool> {
        let mut encoder = zstd::Encoder::new(compressed, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        loop {
            if self.is_over() {
                return Ok(false);
            }
            if io::copy(&mut (&mut plain).take(PIECE), &mut encoder)? < PIECE {
                break;
            }
        }
        encoder.finish()?.sync_all()?;
        Ok(true)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) != 0
    }
}

/// How much is compressed at a stretch: some milliseconds.
const PIECE: u64 = 1 << 20;

/// The text of a compressed file.
pub(crate) fn decode(file: File) -> io::Result<Box<dyn BufRead>> {
    Ok(Box::new(BufReader::new(zstd::Decoder::new(file)?)))
}
