//! Files that a command writes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Puts a file in the place of another at once: who reads it sees the one or the other. What is no plain file, such as a device, is written
/// to.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|data| !data.is_file()) {
        return std::fs::write(path, bytes);
    }
    let mut file = Beside::of(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// File that takes the place of another when it is complete. One that is not goes away.
pub(crate) struct Beside {
    path: PathBuf,
    beside: PathBuf,
    file: BufWriter<File>,
    is_done: bool,
}

impl Beside {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = PathBuf::from(beside);
        let file = BufWriter::new(File::create_new(&beside)?);
        Ok(Self { path: path.to_owned(), beside, file, is_done: false })
    }

    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.file.flush()?;
        std::fs::rename(&self.beside, &self.path)?;
        self.is_done = true;
        Ok(())
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.is_done {
            _ = std::fs::remove_file(&self.beside);
        }
    }
}
