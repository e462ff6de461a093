//! `forebay report`: one page with all curves, settings and losses.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use crate::args::Report;
use crate::error::Error;
use crate::out::Out;
use crate::{folder, page};

pub(crate) fn run(asked: &Report, out: &mut Out) -> Result<u8, Error> {
    let runs = folder::read(&asked.folders.paths, asked.points)?;
    let names: Vec<String> = asked.folders.paths.iter().map(|path| path.display().to_string()).collect();
    let now = SystemTime::now();
    let page = page::page(&page::data(&names.join(", "), &runs, asked.points, now));
    if asked.out == Path::new("-") {
        out.write_all(page.as_bytes())?;
        return Ok(0);
    }
    replace(&asked.out, page.as_bytes())
        .map_err(|error| Error::Asked(format!("{}: {error}", asked.out.display())))?;
    out.line(format_args!("{} ({} runs, {} kB)", asked.out.display(), runs.len(), page.len() / 1000))?;
    Ok(0)
}

/// Puts a file in the place of another at once: who reads it sees the one or the other. What is no plain file, such as a device, is written to.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|data| !data.is_file()) {
        return std::fs::write(path, bytes);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let written = std::fs::File::create_new(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&beside, path));
    written.inspect_err(|_| _ = std::fs::remove_file(&beside))
}
