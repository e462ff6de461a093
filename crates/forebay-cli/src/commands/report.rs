//! `forebay report`: one page with all curves, settings and losses.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use crate::args::Report;
use crate::error::Error;
use crate::out::Out;
use crate::{file, folder, page};

pub(crate) fn run(asked: &Report, out: &mut Out) -> Result<u8, Error> {
    let runs = folder::read(&asked.folders.paths, asked.points)?;
    let names: Vec<String> = asked.folders.paths.iter().map(|path| path.display().to_string()).collect();
    let now = SystemTime::now();
    let page = page::page(&page::data(&names.join(", "), &runs, asked.points, now));
    if asked.out == Path::new("-") {
        out.write_all(page.as_bytes())?;
        return Ok(0);
    }
    file::replace(&asked.out, page.as_bytes())
        .map_err(|error| Error::Asked(format!("{}: {error}", asked.out.display())))?;
    out.line(format_args!("{} ({} runs, {} kB)", asked.out.display(), runs.len(), page.len() / 1000))?;
    Ok(0)
}
