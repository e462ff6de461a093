//! Writes runs for `check.py`, which asks the real TensorBoard what it sees in them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a script")]

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use forebay::event::catalog::training;
use forebay::event::{Encoded, ImageFormat};
use forebay::sink::{BackwardStep, MissingStep, Tags, TensorBoardSink};
use forebay::{Collector, Fields, Histogram, Image, Record};
use tfevents::{FieldValue, Fields as MessageFields};

type Outcome = Result<(), Box<dyn Error>>;

const USAGE: &str = "usage: interop_write FOLDER FOLDER-OF-ENCODED [FOLDER-OF-RECIPES]";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return ExitCode::from(2);
    }
    if !(2..=3).contains(&arguments.len()) {
        eprintln!("interop_write: {USAGE}");
        return ExitCode::from(2);
    }
    match write(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interop_write: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(arguments: Vec<OsString>) -> Outcome {
    let mut arguments = arguments.into_iter();
    let folder = arguments.next().ok_or(USAGE)?;
    encoded(Path::new(&arguments.next().ok_or(USAGE)?))?;
    #[cfg(feature = "sqlite")]
    if let Some(folder) = arguments.next() {
        recipes(Path::new(&folder))?;
    }
    let folder = Path::new(&folder);
    everything(&folder.join("everything"))?;
    // In a run of its own: TensorBoard's table of hyper-parameters fails at steps of more than 31 bits.
    let far = [1 << 53, (1 << 53) + 1].map(|step| Record::scalar("far", 1.0).with_step(step));
    run(TensorBoardSink::create(folder.join("far"))?, far)?;
    resumed(&folder.join("resumed"))?;
    torn(&folder.join("torn"))?;
    as_torch(&folder.join("as_torch"))?;
    for rank in 0..2 {
        this_rank(&folder.join(format!("ranks/{rank}")), rank)?;
    }
    Ok(())
}

/// Writes the files that the recipes of `docs/reading.md` and the README read: see `recipes.py`.
#[cfg(feature = "sqlite")]
fn recipes(folder: &Path) -> Outcome {
    use forebay::FlushStrategy;
    use forebay::run::TrainingRun;
    use forebay::sink::{JsonLinesSink, SqliteSink};

    let one = folder.join("runs/1");
    let collector = Collector::builder()
        .flush(FlushStrategy::Manual)
        .capacity(2_000)
        .sink(JsonLinesSink::create(one.join("events.jsonl"))?)
        .sink(SqliteSink::create(one.join("events.db"))?)
        .sink(TensorBoardSink::create(&one)?)
        .sink(
            JsonLinesSink::create(folder.join("runs/2/events.jsonl"))?.named("rotated").rotate_at(64 * 1024),
        )
        .start()?;
    let run = TrainingRun::builder().name("digits").config([("learning_rate", 0.1)]).start(&collector)?;
    let epoch = run.epoch(1, 1);
    for step in 0..1_000 {
        collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
    }
    let _ = collector.flush()?;
    collector.collect(Record::scalar("train.gradient_norm", f64::NAN).with_step(998));
    collector.collect(Record::scalar("train.gradient_norm", f64::INFINITY).with_step(999));
    epoch.completed([("val_loss", 0.4)]);
    let _ = collector.flush()?;
    // A hundred more than there is space for.
    for batch in 0..2_100 {
        collector.collect(Record::integer("data.batch", batch));
    }
    run.completed([("val_accuracy", 0.97)])?;
    let stats = collector.stop()?.stats;
    if stats.evicted == 100 { Ok(()) } else { Err(format!("not 100 were evicted: {stats}").into()) }
}

fn run(sink: TensorBoardSink, records: impl IntoIterator<Item = Record>) -> Outcome {
    let collector = Collector::builder().capacity(100_000).sink(sink).start()?;
    let mut offered = 0;
    for record in records {
        collector.collect(record);
        offered += 1;
    }
    let stats = collector.stop()?.stats;
    stats.check_law(offered)?;
    let failed = stats.sinks[0].failed + stats.evicted;
    if failed > 0 { Err(format!("{failed} events were not written").into()) } else { Ok(()) }
}

/// Returns the value of a step: any 32 bits, so that some are NaN, infinite or denormal. `check.py` knows the formula.
fn value(step: u64) -> f32 {
    f32::from_bits((step as u32).wrapping_mul(0x9e37_79b9))
}

fn everything(folder: &Path) -> Outcome {
    let mut records: Vec<Record> = Vec::new();
    let config = Fields::new().with("rate", 0.125).with("layers", 3).with("name", "mlp").with("fast", true);
    let run_id = "everything".to_owned();
    records.push(training::Started { run_id, config, model_type: None }.into());
    for step in 0..5_000 {
        records.push(Record::scalar("train.bits", value(step)).with_step(step));
        records.push(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
    }
    for step in 0..3_u32 {
        let weights: Vec<f64> = (0..100).map(|n| f64::from(n * (step + 1))).collect();
        let step = u64::from(step);
        records.push(Record::histogram("weights", Histogram::from_values(&weights, 10)).with_step(step));
        records.push(Record::text("notes", format!("step **{step}**")).with_step(step));
        let bytes = (0..4 * 3 * 3).map(|n| n * 7 + step as u8).collect();
        let image = Image { width: 4, height: 3, format: ImageFormat::Rgb8, bytes };
        records.push(Record::image("picture", image).with_step(step));
    }
    let final_metrics = Fields::new().with("accuracy", 0.5);
    let total_duration = std::time::Duration::from_secs(1);
    records.push(training::Completed { final_metrics, total_duration }.into());
    run(TensorBoardSink::create(folder)?, records)
}

/// Writes ten steps; then another process goes on at step 6.
fn resumed(folder: &Path) -> Outcome {
    let steps = |range: std::ops::Range<u64>, value: f64| {
        range.map(move |step| Record::scalar("train.loss", value).with_step(step))
    };
    run(TensorBoardSink::create(folder)?, steps(0..10, 1.0))?;
    run(TensorBoardSink::resume(folder, 6)?, steps(6..12, 2.0))
}

/// Writes a file whose last record is torn, and the file of the process that went on.
fn torn(folder: &Path) -> Outcome {
    let steps =
        |range: std::ops::Range<u64>| range.map(|step| Record::scalar("train.loss", 1.0).with_step(step));
    let sink = TensorBoardSink::create(folder)?;
    let path = sink.path().to_owned();
    run(sink, steps(0..10))?;
    let bytes = fs::read(&path)?;
    fs::write(&path, &bytes[..bytes.len() - 5])?;
    run(TensorBoardSink::resume(folder, 9)?, steps(9..20))
}

/// Writes what PyTorch's writer would write, and sub-runs.
fn as_torch(folder: &Path) -> Outcome {
    let sink = TensorBoardSink::create(folder)?
        .filename_suffix(".mine")?
        .tags(Tags::Verbatim)
        .missing_steps(MissingStep::Zero)
        .backward_steps(BackwardStep::Write);
    let mut records: Vec<Record> =
        (-1..3).map(|step| Record::scalar("val.loss", 0.5).with_signed_step(step)).collect();
    records.extend([5, 3].map(|step| Record::scalar("back", step as f64).with_step(step)));
    records.extend([1.0, 2.0].map(|value| Record::scalar("no.step", value)));
    // Two pixels, as a palette.
    let gif = b"GIF87a\x02\0\x01\0\x81\0\0\xff\0\0\0\0\xff\0\0\0\0\0\0,\0\0\0\0\x02\0\x01\0\0\x08\x05\0\x01\x04\x08\x08\0;";
    records.push(Record::image("gif", Image::gif(*gif)?).with_step(0));
    for step in 0..10 {
        for (name, value) in [("loss_train", 1.0), ("eval/fold_1", 2.0)] {
            records.push(Record::scalar("loss", value).with_step(step).with_sub_run(name));
        }
    }
    run(sink, records)
}

/// Copies the files that PyTorch has written, as `ORIGINAL/...`, and passes each event through a sink, as `PASSED/...`.
fn encoded(folder: &Path) -> Outcome {
    let origin = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tfevents/tests/torch-writer");
    for method in fs::read_dir(&origin)? {
        let method = method?.path();
        // A folder below it is another run.
        let mut folders = if method.is_dir() { vec![method] } else { Vec::new() };
        while let Some(from) = folders.pop() {
            let name = from.strip_prefix(&origin)?;
            let (original, passed) = (folder.join("original").join(name), folder.join("passed").join(name));
            let mut records = Vec::new();
            let mut paths = fs::read_dir(&from)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, std::io::Error>>()?;
            paths.sort();
            for path in paths {
                let file = path.file_name().ok_or("no name")?;
                if path.is_dir() {
                    folders.push(path);
                } else if file.to_string_lossy().contains("tfevents") {
                    fs::create_dir_all(&original)?;
                    fs::copy(&path, original.join(file))?;
                    records.extend(events(&fs::read(&path)?)?);
                }
            }
            let sink = TensorBoardSink::create(&passed)?;
            run(sink, records)?;
        }
    }
    Ok(())
}

/// Returns records of the events of a file, behind the first, which tells its version.
fn events(mut bytes: &[u8]) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = u64::from_le_bytes(*length) as usize;
        let event = rest.get(4..4 + length).ok_or("a torn file")?;
        bytes = &rest[4 + length + 4..];
        let (mut time, mut step, mut parts) = (0.0, 0, Vec::new());
        let (mut fields, mut begin) = (MessageFields::new(event), 0);
        while let Some(field) = fields.next() {
            match field? {
                (1, FieldValue::Fixed64(bytes)) => time = f64::from_le_bytes(bytes),
                (2, FieldValue::Varint(number)) => step = number as i64,
                (3 | 10, _) => {}
                (5, FieldValue::Bytes(summary)) => parts.push(Encoded::Summary(summary.into())),
                _ => parts.push(Encoded::Event(event[begin..fields.position()].into())),
            }
            begin = fields.position();
        }
        let record = |part| {
            Record::with_value("encoded", part).with_signed_step(step).with_unix_nanos((time * 1e9) as u64)
        };
        records.extend(parts.into_iter().map(record));
    }
    Ok(records)
}

fn this_rank(folder: &Path, rank: u32) -> Outcome {
    let steps = (0..10).map(|step| Record::scalar("train.loss", f64::from(rank)).with_step(step));
    run(TensorBoardSink::create(folder)?, steps)
}
