//! Changes event files at random and reads them, for as many seconds as are given (10 if none are).
//!
//! `cargo run --release -p tfevents --example fuzz_decoder 600`. It ends with a panic that tells the seed if a promise of the reader
//! does not hold, and tells how many files it read.
#![allow(clippy::print_stdout, clippy::panic, reason = "a program for a person")]

#[path = "../tests/support/fuzz.rs"]
mod fuzz;

use std::path::Path;
use std::time::{Duration, Instant};

use fuzz::Corpus;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().map_or(Ok(10), |seconds| seconds.parse())?;
    let first: u64 = args.next().map_or(Ok(0), |seed| seed.parse())?;
    let mut files = Vec::new();
    find(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torch-writer")), &mut files)?;
    // Folders have no order of their own, and a seed is to mean the same everywhere.
    files.sort();
    let corpus = Corpus::new(files.into_iter().map(|(_, bytes)| bytes).collect());
    let begun = Instant::now();
    let (mut runs, mut events) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1_000 {
            events += corpus.run(first + runs);
            runs += 1;
        }
    }
    println!("{runs} changed files were read twice each, {events} events found in them, in {seconds} s");
    Ok(())
}

/// Reads all event files in a folder and below.
fn find(folder: &Path, files: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            find(&path, files)?;
        } else if name.contains("events.out.tfevents.") {
            files.push((name, std::fs::read(&path)?));
        }
    }
    Ok(())
}
