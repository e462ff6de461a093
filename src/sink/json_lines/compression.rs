//! Closed files, compressed by zstd, on a thread of their own: 100 MiB take some tenths of a second, in which no sink
//! would get anything.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{JsonLinesSink, closed};
use crate::sync::{self, Arc, JoinHandle, Mutex};

impl JsonLinesSink {
    /// Compresses closed files (feature `zstd`): `events.jsonl.000001` becomes `events.jsonl.000001.zst`, about a tenth as
    /// large, which `zstd -d` and `zstdcat` read, and [`JsonLinesHistory`](crate::history::JsonLinesHistory). By default
    /// they stay as they are.
    ///
    /// A thread of its own does it, one file after the other; dropping the sink waits for it. A file keeps its old form
    /// until the new one is whole and synced to the disk: a process that dies meanwhile loses nothing, and the next one
    /// compresses what is left when it closes a file. What goes wrong is told as an error of the batch that closes the
    /// next file, without a failed event.
    pub fn compress_closed(mut self) -> Self {
        let mut compressor = Compressor { path: self.path.clone(), thread: None, error: Arc::default() };
        self.after_close = Some(Box::new(move || compressor.start()));
        self
    }
}

struct Compressor {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    /// What went wrong since it was last asked.
    error: Arc<Mutex<Option<io::Error>>>,
}

impl Compressor {
    fn start(&mut self) -> io::Result<()> {
        let before = self.error.lock().take().map_or(Ok(()), Err);
        // One that is at it looks for more before it ends.
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (path, error) = (self.path.clone(), Arc::clone(&self.error));
            let thread = sync::spawn("forebay-zstd", None, move || {
                if let Err(failed) = compress_all(&path) {
                    *error.lock() = Some(failed);
                }
            })?;
            self.thread = Some(thread);
        }
        before
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            sync::join(thread);
        }
    }
}

fn compress_all(path: &Path) -> io::Result<()> {
    while let Some(next) = closed(path)?.into_iter().find(|closed| !closed.is_compressed) {
        match compress(&next.path) {
            // Only so many are kept.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !next.path.exists() => {}
            compressed => compressed?,
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let unfinished = with(".zst.new");
    let mut encoder = zstd::Encoder::new(File::create(&unfinished)?, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    encoder.include_checksum(true)?;
    let written = io::copy(&mut File::open(path)?, &mut encoder).and_then(|_| encoder.finish());
    match written.and_then(|file| file.sync_all()) {
        Ok(()) => fs::rename(unfinished, with(".zst")).and_then(|()| fs::remove_file(path)),
        Err(error) => {
            // On a full disk it would be in the way of all others.
            let _ = fs::remove_file(unfinished);
            Err(error)
        }
    }
}

/// The text of a compressed file.
pub(crate) fn decode(file: File) -> io::Result<Box<dyn BufRead>> {
    Ok(Box::new(BufReader::new(zstd::Decoder::new(file)?)))
}
