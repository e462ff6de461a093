//! Target of the path that a sink is given.
//!
//! Only a plain file at a path of its own may be renamed, cut, or looked for. All else is a stream that others own: a pipe, a
//! device, a socket, a descriptor that the process was started with, although a plain file may be behind that.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::presence::{Found, Presence};
use crate::unix::{duplicate, file_id, is_unlinked, open_append, open_read, sync_folder, write_stream};

/// Something that is open for appending, and how it may be treated.
#[derive(Debug)]
pub(super) struct Target {
    /// Path of the file, without symbolic links.
    path: PathBuf,
    file: File,
    kind: Kind,
    /// Number of folders above the file that were created with it.
    new_folders: usize,
    presence: Presence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A plain file.
    File,
    /// A pipe or a device.
    Stream,
    /// A descriptor, as `/dev/stdout` is, with a plain file behind it: others may write to it, and nobody knows its path.
    SharedFile,
    /// A descriptor with anything else behind it, or a connection to a socket.
    SharedStream,
}

impl Target {
    /// Opens what `path` leads to, and creates a plain file, with its folders, if there is nothing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut path = resolve(path)?;
        if path.file_name().and_then(|name| name.to_str()).is_none() {
            // Closed files get a number behind it.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of the file is not UTF-8"));
        }
        let is_shared = is_descriptor(&path);
        let mut new_folders = 0;
        let copy = own_descriptor(&path).and_then(|number| duplicate(number).ok());
        let file = match copy {
            Some(copy) => copy,
            None => {
                if let Some(folder) = path.parent().filter(|_| !is_shared) {
                    new_folders = folder.ancestors().take_while(|folder| !folder.exists()).count();
                    path = in_real_folder(&path)?;
                }
                open_append(&path)?
            }
        };
        let presence = Presence::of(&file)?;
        let kind = match (file.metadata()?.is_file(), is_shared) {
            (true, false) => Kind::File,
            (true, true) => Kind::SharedFile,
            // The end of a connection is not what is at the path of its socket.
            (false, false) if matches!(presence.look(&path), Found::Own(_)) => Kind::Stream,
            (false, _) => Kind::SharedStream,
        };
        Ok(Self { path, file, kind, new_folders, presence })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it is a plain file at a path of its own, which may be renamed and cut.
    pub(super) fn is_own_file(&self) -> bool {
        self.kind == Kind::File
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Returns whether it is time to [`look`](Self::look).
    pub(super) fn is_look_due(&mut self, now: u64) -> bool {
        self.presence.is_due(now)
    }

    /// Makes the next batch look.
    pub(super) fn doubt(&mut self) {
        self.presence.doubt();
    }

    /// Syncs a file to the disk. A stream has nothing to write.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self.kind {
            Kind::File | Kind::SharedFile => self.file.sync_data(),
            Kind::Stream | Kind::SharedStream => Ok(()),
        }
    }

    /// Syncs the name of a file to the disk, and those of the folders that were created with it.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        let folders = self.path.ancestors().skip(1).take(1 + self.new_folders);
        if self.kind == Kind::File { folders.into_iter().try_for_each(sync_folder) } else { Ok(()) }
    }

    /// Returns the length of the file, and whether its last line is torn. A stream has neither.
    pub(super) fn examine(&self) -> io::Result<(u64, bool)> {
        let length = self.file.metadata()?.len();
        if length == 0 || !matches!(self.kind, Kind::File | Kind::SharedFile) {
            return Ok((0, false));
        }
        // It may be closed once too often, where that cannot be seen: an empty line is no harm.
        Ok((length, self.last_byte().ok() != Some(b'\n')))
    }

    fn last_byte(&self) -> io::Result<u8> {
        let mut file = self.reader()?;
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last[0])
    }

    /// Opens the file a second time, for reading: the sink itself may write alone.
    pub(super) fn reader(&self) -> io::Result<File> {
        let file = open_read(&self.path)?;
        // Another one may be at the path by now.
        if file_id(&file.metadata()?) != file_id(&self.file.metadata()?) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(file)
    }

    /// Looks whether writes go where the path leads; `Own` with the length of a file. What cannot be looked at is good as
    /// long as it has a name.
    pub(super) fn look(&self) -> Found {
        match (self.kind, self.presence.look(&self.path)) {
            (Kind::SharedFile | Kind::SharedStream, _) => Found::Own(0),
            // A pipe without a name has its reader all the same.
            (Kind::Stream, Found::Nothing) => Found::Own(0),
            (Kind::File, Found::Unknown) if self.is_unlinked() => Found::Nothing,
            (_, found) => found,
        }
    }

    /// Returns whether no path leads to a file of our own any more.
    pub(super) fn is_unlinked(&self) -> bool {
        self.kind == Kind::File && is_unlinked(&self.file)
    }

    /// Writes some of the bytes; at the end of a file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.kind {
            Kind::File => self.file.write(bytes),
            Kind::Stream | Kind::SharedStream => write_stream(&self.file, bytes),
            Kind::SharedFile => {
                // Those who share the descriptor share its place in the file: they go on behind these bytes.
                self.file.seek(SeekFrom::End(0))?;
                self.file.write(bytes)
            }
        }
    }
}

/// Maximum number of symbolic links, which is that of Linux.
const MAX_LINKS: usize = 40;

/// Follows the symbolic links at the end of a path, also to a file that does not exist yet. Stops where a link stands for a
/// descriptor.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if is_descriptor(&path) {
            return Ok(path);
        }
        // What is no link, or cannot be looked at, is opened as it is.
        let Ok(next) = fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Follows all symbolic links on the way to a file, and creates its folder. Stops where a link stands for a descriptor.
pub(super) fn real_path(path: &Path) -> io::Result<PathBuf> {
    let path = resolve(path)?;
    if is_descriptor(&path) { Ok(path) } else { in_real_folder(&path) }
}

/// Creates the folder of a file, and returns the path of the file in it without the symbolic links that lead to the folder: one
/// that is named `latest`, say, leads elsewhere once the next run has begun.
pub(crate) fn in_real_folder(path: &Path) -> io::Result<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path.to_owned()) };
    Ok(real_folder(folder)?.join(name))
}

/// Creates a folder, and returns its path without symbolic links.
pub(crate) fn real_folder(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    // Where a folder above may be passed but not looked at, the path stays as it is.
    Ok(fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()))
}

/// Returns whether the path stands for a descriptor of some process.
fn is_descriptor(path: &Path) -> bool {
    let Some(folder) = path.parent() else { return false };
    // Where /proc is not mounted, nothing is created in its place.
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    folder.starts_with("/proc") || folder == Path::new("/dev/fd")
}

/// Returns the number of a descriptor of this process that the path stands for.
fn own_descriptor(path: &Path) -> Option<i32> {
    let folder = fs::canonicalize(path.parent()?).ok()?;
    let is_own = |own: &str| fs::canonicalize(own).is_ok_and(|own| own == folder);
    let is_own = is_own("/proc/self/fd") || is_own("/proc/thread-self/fd") || folder == Path::new("/dev/fd");
    path.file_name()?.to_str()?.parse().ok().filter(|number| is_own && *number >= 0)
}
