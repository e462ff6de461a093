//! `Writer`: what `forebay.SummaryWriter` is built on.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use forebay::collector::{FlushError, FullLane, StopError};
use forebay::event::Encoded;
use forebay::parts::check_sub_run;
use forebay::run::Signals;
use forebay::sink::{BackwardStep, EarlierPoints, MissingStep, Tags, TensorBoardSink};
use forebay::{Builder, Collector, Event, FlushStrategy, Outcome, Overflow, Record};
use forebay_sync::sync::{Arc, Home, Mutex, OnceLock, Ordering, PlainBool, PlainU64};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use tfevents::{LAYOUT, Mesh, MeshTensor, Summary};

use crate::array::{Array, check_memory, copied, copied_numbers, space};
use crate::convert;
use crate::names::intern;
use crate::point::Point;
use crate::run::{SIGTERM, sigterm_is_free};
use crate::said::Said;
use crate::value::SPACE;
use crate::watch::{self, Work};
use crate::work::histogram::{Bins, Histogram, default_bins};
use crate::work::hparams::{self, SettingRow};
use crate::work::layout::{self, CategoryRow};
use crate::work::pixels::{Grid, Pixels};
use crate::work::{self, audio, curve, tensor};

/// Slots of the ring, in events. A loop that logs 20 scalars a millisecond fills them in a second and a half.
const CAPACITY: usize = 32_768;

/// Bytes that queued events may own: histograms, images, texts.
const MAX_BYTES: usize = 256 << 20;

/// Bytes that one event may own: one part in eight is for critical events alone, of which there are none.
const MAX_EVENT_BYTES: usize = MAX_BYTES - MAX_BYTES / 8;

/// The longest wait for space. Once a call has waited that long in vain, none waits until half of the queue is free.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Base of `forebay.SummaryWriter`: a collector with a TensorBoard sink, which is opened again when it is used after a close.
#[pyclass(frozen, subclass, module = "forebay._forebay")]
pub(crate) struct Writer {
    /// Set by `_setup`, once.
    settings: OnceLock<Settings>,
    /// `None` while the writer is closed.
    core: ArcSwapOption<Core>,
    /// Held while it is opened.
    opening: Mutex<()>,
    /// Files that it has begun in this process.
    begun: ArcSwap<Begun>,
    /// Number of calls that added nothing, because the writer is a copy or cannot be opened.
    ignored: Arc<PlainU64>,
    /// What became of everything that was added before the last close in this process.
    closed: ArcSwap<Mutex<Account>>,
    /// The moment, in nanoseconds since 1970, until which no call tries to open it: it could not be opened a moment before. 0 where it
    /// could. Relaxed: it guards no other data.
    retry_at: PlainU64,
    /// Whether the attribute `_defaults` has the step and the moment of what is added without. It is set before this. Relaxed: a thread
    /// that sees it a moment late adds as before.
    has_defaults: PlainBool,
}

/// Files that a writer has begun: of each a hash of its path, because a writer of sub-runs may have any number.
#[derive(Default)]
struct Begun(Mutex<HashSet<u64>>);

impl Begun {
    fn hash(path: &Path) -> u64 {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        hasher.finish()
    }

    fn add(&self, path: &Path) {
        if let Ok(mut files) = self.0.enter() {
            files.insert(Self::hash(path));
        }
    }

    fn has(&self, path: &Path) -> bool {
        self.0.enter().is_ok_and(|files| files.contains(&Self::hash(path)))
    }
}

/// What became of everything that was added, by its fate.
type Account = HashMap<&'static str, u64>;

/// Returns the account of a writer to which nothing was added.
fn no_account() -> Account {
    ["offered", "processed", "pending", "evicted", "rejected", "failed", "waits"].map(|fate| (fate, 0)).into()
}

struct Settings {
    /// That of the process that made it, absolute: the program may go to another folder.
    folder: PathBuf,
    /// Time between deliveries while little happens.
    interval: Duration,
    filename_suffix: String,
    /// Whether a forked child, or a copy, writes into a folder of its own. Otherwise it writes nothing, and what it adds is counted.
    reopens_in_child: bool,
    /// Whether it was unpickled: the original is in another process.
    is_copy: bool,
}

impl Settings {
    /// Returns the folder that a process writes to, which may be another than that which made the writer.
    fn folder_in(&self, is_elsewhere: bool) -> PathBuf {
        match is_elsewhere {
            true => self.folder.join(format!("pid_{}", std::process::id())),
            false => self.folder.clone(),
        }
    }
}

/// What an open writer has.
struct Core {
    collector: Collector<Point>,
    /// The process that opened it.
    home: Home,
    /// Whether a call has waited for space in vain, and the queue has not been half empty since. Any thread that collects writes it. It
    /// guards no other data, so that Relaxed suffices.
    is_stalled: PlainBool,
    /// Whether it was said since the last flush that an event is too large. Relaxed: it guards no other data.
    has_said_too_large: PlainBool,
    said: Said,
    /// Kept until the collector has stopped: SIGTERM has it stop, and then ends the process.
    _signals: Option<Signals>,
}

/// The time between two attempts to open a writer that cannot be opened.
const RETRY: Duration = Duration::from_secs(1);

/// Returns the name of a sub-run for what PyTorch would join to the path of its folder: `a//b/` is `a/b`.
fn sub_run_of(name: &str) -> PyResult<Cow<'_, str>> {
    let is_empty = |part: &str| matches!(part, "" | ".");
    let own = if !name.starts_with('/') && name.split('/').any(is_empty) {
        name.split('/').filter(|part| !is_empty(part)).collect::<Vec<_>>().join("/").into()
    } else {
        Cow::from(name)
    };
    check_sub_run(&own).map_err(PyValueError::new_err)?;
    Ok(own)
}

#[pymethods]
impl Writer {
    /// Takes any arguments: classes that are derived from it have their own, and pass them to `_setup`.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            settings: OnceLock::new(),
            core: ArcSwapOption::empty(),
            opening: Mutex::new(()),
            begun: ArcSwap::default(),
            ignored: Arc::new(PlainU64::new(0)),
            closed: ArcSwap::from_pointee(Mutex::new(no_account())),
            retry_at: PlainU64::new(0),
            has_defaults: PlainBool::new(false),
        }
    }

    /// Sets what the writer writes, and opens it.
    fn _setup(
        slf: &Bound<'_, Self>,
        folder: PathBuf,
        interval: f64,
        purge_step: Option<i64>,
        filename_suffix: String,
        reopens_in_child: bool,
        is_copy: bool,
    ) -> PyResult<()> {
        if interval.is_nan() {
            return Err(PyValueError::new_err("flush_secs must be a number of seconds, got nan"));
        }
        // At most a second: what a killed process loses.
        let interval = Duration::from_secs_f64(interval.clamp(0.01, 1.0));
        let folder = std::path::absolute(folder)?;
        let settings = Settings { folder, interval, filename_suffix, reopens_in_child, is_copy };
        let this = slf.get();
        if this.settings.set(settings).is_err() {
            return Err(PyRuntimeError::new_err("the writer is set up already"));
        }
        if is_copy { Ok(()) } else { this.open(slf, purge_step).map(drop) }
    }

    /// Adds a number.
    ///
    /// Args:
    ///     tag: The name.
    ///     scalar_value: The number, or a tensor of one element.
    ///     global_step: The step. Defaults to 0 in the file.
    ///     walltime: The moment, in seconds since 1970. Defaults to now.
    ///     new_style: Whether the number is written as a tensor.
    ///     double_precision: Whether that tensor has 64 bits. TensorBoard's default loader shows none of these.
    ///     display_name: The title of the chart, as tensorboardX has it. Defaults to the tag.
    ///     summary_description: What the chart tells of itself, in Markdown, as tensorboardX has it.
    ///
    /// Raises:
    ///     AssertionError: A tensor of more or fewer elements than one.
    ///     NotImplementedError: Neither a number nor a tensor.
    #[pyo3(signature = (tag, scalar_value, global_step = None, walltime = None, new_style = false, double_precision = false,
        *, display_name = None, summary_description = None),
        text_signature = "($self, tag, scalar_value, global_step=None, walltime=None, new_style=False, double_precision=False, \
            *, display_name='', summary_description='')")]
    #[allow(clippy::too_many_arguments, reason = "the arguments of PyTorch's method")]
    fn add_scalar(
        slf: &Bound<'_, Self>,
        tag: &str,
        scalar_value: &Bound<'_, PyAny>,
        global_step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
        new_style: bool,
        double_precision: bool,
        display_name: Option<&str>,
        summary_description: Option<&str>,
    ) -> PyResult<()> {
        let value = convert::scalar(scalar_value)?;
        let (step, walltime) = Self::place(slf, global_step, walltime)?;
        let (display_name, summary_description) =
            (display_name.unwrap_or_default(), summary_description.unwrap_or_default());
        Self::with(slf, |core| {
            let mut record = convert::placed(Record::scalar(intern(tag), value), step, walltime);
            if new_style || !display_name.is_empty() || !summary_description.is_empty() {
                let summary = match (new_style, double_precision) {
                    (false, _) => Summary::Scalar(value as f32),
                    (true, false) => Summary::ScalarTensor(value as f32),
                    (true, true) => Summary::DoubleTensor(value),
                };
                work::encode_described(&mut record, tag, summary, display_name, summary_description);
            }
            core.collect(slf.py(), Point::new(record));
        })
    }

    /// Adds several scalars to be shown in one chart: each as a run of its own, in the folder ``<log_dir>/<main_tag>_<key>``.
    ///
    /// Args:
    ///     main_tag: The tag that all of them have.
    ///     tag_scalar_dict: The scalars by their key.
    ///     global_step: The step.
    ///     walltime: The moment, in seconds since 1970. Defaults to now.
    ///
    /// Raises:
    ///     AssertionError: A tensor of more or fewer elements than one.
    ///     NotImplementedError: Neither a number nor a tensor.
    #[pyo3(signature = (main_tag, tag_scalar_dict, global_step = None, walltime = None))]
    fn add_scalars(
        slf: &Bound<'_, Self>,
        main_tag: &str,
        tag_scalar_dict: &Bound<'_, PyAny>,
        global_step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let (step, walltime) = Self::place(slf, global_step, walltime)?;
        let nanos = walltime.map_or_else(convert::now, convert::nanos);
        let mut sub_run = main_tag.replace('/', "_");
        sub_run.push('_');
        let prefix = sub_run.len();
        for (key, value) in convert::items(tag_scalar_dict)? {
            sub_run.truncate(prefix);
            sub_run.push_str(key.str()?.to_str()?);
            let value = convert::scalar(&value)?;
            let name = intern(&sub_run_of(&sub_run)?);
            Self::with(slf, |core| {
                let record = Record::scalar(intern(main_tag), value).with_unix_nanos(nanos);
                let record = convert::placed(record, step, None).with_sub_run(name);
                core.collect(slf.py(), Point::new(record));
            })?;
        }
        Ok(())
    }

    fn _add_text(
        slf: &Bound<'_, Self>,
        tag: &str,
        text: &str,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let text = convert::copied_text(text)?;
        Self::add(slf, tag, step, walltime, text.len(), 4 * text.len(), move |record| {
            let tag = format!("{}/text_summary", record.name());
            work::encode(record, &tag, Summary::Texts(&[&text]));
        })
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments of PyTorch's method")]
    fn _add_histogram(
        slf: &Bound<'_, Self>,
        tag: &str,
        data: PyBuffer<u8>,
        code: &str,
        edges: Option<PyBuffer<f64>>,
        counts: Option<PyBuffer<f64>>,
        max_bins: Option<usize>,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let values = Array::copy(slf.py(), &data, code)?;
        let copy = |numbers: &PyBuffer<f64>| copied_numbers(slf.py(), numbers);
        let edges = edges.as_ref().map(copy).transpose()?;
        let counts = counts.as_ref().map(copy).transpose()?;
        let bins = [&edges, &counts].into_iter().flatten().map(|numbers| 8 * numbers.len()).sum::<usize>();
        let held = values.byte_len() + bins;
        let count = move || {
            let bins = edges.map(Bins::of);
            let bins = bins.as_ref().unwrap_or_else(|| default_bins());
            Histogram::of(&values, bins, counts, max_bins)
        };
        if held.saturating_add(SPACE) > MAX_EVENT_BYTES {
            // The queue never has room for the values. It may have room for the bins.
            let histogram = slf.py().detach(count);
            let bytes = histogram.byte_len();
            return Self::add(slf, tag, step, walltime, bytes, 4 * bytes, move |record| {
                encode(record, histogram.summary());
            });
        }
        Self::add(slf, tag, step, walltime, held, 8 * bins, move |record| encode(record, count().summary()))
    }

    fn _add_histogram_raw(
        slf: &Bound<'_, Self>,
        tag: &str,
        numbers: [f64; 5],
        limits: PyBuffer<f64>,
        counts: PyBuffer<f64>,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let copy = |numbers: &PyBuffer<f64>| copied_numbers(slf.py(), numbers);
        let histogram = Histogram::counted(numbers, copy(&limits)?, copy(&counts)?);
        let bytes = 16 * limits.item_count();
        Self::add(slf, tag, step, walltime, bytes, 4 * bytes, move |record| {
            encode(record, histogram.summary())
        })
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments of PyTorch's method")]
    fn _add_image(
        slf: &Bound<'_, Self>,
        tag: &str,
        data: PyBuffer<u8>,
        code: &str,
        shape: Vec<usize>,
        letters: &str,
        is_opaque: bool,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let array = Array::copy(slf.py(), &data, code)?;
        let grid = Grid::new(&shape, letters, 8, is_opaque);
        // The levels, and the pixels; their file twice, and three copies of that until it is on the disk.
        let makes = array.len().saturating_add(grid.bytes().saturating_mul(6));
        Self::add(slf, tag, step, walltime, array.byte_len(), makes, move |record| {
            let pixels = Pixels::of(&array, &grid);
            encode_image(record, &pixels, [pixels.height, pixels.width, pixels.channels]);
        })
    }

    /// Adds pixels that have been drawn into, and may have another size than `shown` says: the height, width and channels of the original.
    fn _add_drawn(
        slf: &Bound<'_, Self>,
        tag: &str,
        bytes: &[u8],
        size: (usize, usize),
        shown: [usize; 3],
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let pixels = Pixels { bytes: copied(bytes)?, height: size.1, width: size.0, channels: shown[2] };
        let bytes = pixels.bytes.len();
        Self::add(slf, tag, step, walltime, bytes, 6 * bytes, move |record| {
            encode_image(record, &pixels, shown)
        })
    }

    /// Adds a file of an image, whose height, width and channels are given.
    fn _add_encoded_image(
        slf: &Bound<'_, Self>,
        tag: &str,
        file: &[u8],
        shown: [usize; 3],
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let (file, bytes) = (copied(file)?, file.len());
        Self::add(slf, tag, step, walltime, bytes, 4 * bytes, move |record| encode_file(record, &file, shown))
    }

    fn _add_audio(
        slf: &Bound<'_, Self>,
        tag: &str,
        data: PyBuffer<u8>,
        code: &str,
        rate: u32,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let samples = Array::copy(slf.py(), &data, code)?;
        Self::add(slf, tag, step, walltime, samples.byte_len(), 10 * samples.len(), move |record| {
            let file = audio::wav(&samples, rate);
            let frames = samples.len() as u64;
            let content_type = "audio/wav";
            encode(
                record,
                Summary::LegacyAudio {
                    sample_rate: rate as f32,
                    channels: 1,
                    frames,
                    encoded: &file,
                    content_type,
                },
            );
        })
    }

    fn _add_tensor(
        slf: &Bound<'_, Self>,
        tag: &str,
        data: PyBuffer<u8>,
        code: &str,
        shape: Vec<u64>,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let mut array = Array::copy(slf.py(), &data, code)?;
        let bytes = array.byte_len();
        Self::add(slf, tag, step, walltime, bytes, 4 * bytes, move |record| {
            let dtype = tensor::dtype(array.kind());
            encode(record, Summary::Tensor { dtype, shape: &shape, content: array.little_endian() });
        })
    }

    fn _add_pr_curve(
        slf: &Bound<'_, Self>,
        tag: &str,
        arrays: Vec<(PyBuffer<u8>, String)>,
        thresholds: usize,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let copy = |(data, code): &(PyBuffer<u8>, String)| Array::copy(slf.py(), data, code);
        let arrays = arrays.iter().map(copy).collect::<PyResult<Vec<_>>>()?;
        let bytes = arrays.iter().map(Array::byte_len).sum();
        Self::add(slf, tag, step, walltime, bytes, 0, move |record| {
            let [labels, predictions, weights @ ..] = &arrays[..] else { return };
            let rows = curve::precision_recall(labels, predictions, weights.first(), thresholds);
            encode(record, Summary::PrCurve { rows: rows.each_ref().map(Vec::as_slice) });
        })
    }

    fn _add_pr_curve_raw(
        slf: &Bound<'_, Self>,
        tag: &str,
        rows: [PyBuffer<f64>; 6],
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let copy = |row: &PyBuffer<f64>| copied_numbers(slf.py(), row);
        let rows = rows.iter().map(copy).collect::<PyResult<Vec<_>>>()?;
        let bytes = rows.iter().map(|row| 8 * row.len()).sum();
        Self::add(slf, tag, step, walltime, bytes, 4 * bytes, move |record| {
            let Ok(rows) = <[Vec<f64>; 6]>::try_from(rows) else { return };
            let rows = rows.map(|row| row.into_iter().map(|number| number as f32).collect::<Vec<_>>());
            encode(record, Summary::PrCurve { rows: rows.each_ref().map(Vec::as_slice) });
        })
    }

    /// Adds a mesh: its vertices, and where they are given its faces and its colours.
    fn _add_mesh(
        slf: &Bound<'_, Self>,
        tag: &str,
        arrays: Vec<(String, PyBuffer<u8>, String, [u64; 3])>,
        config: &str,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let copy = |(name, data, code, shape): &(String, PyBuffer<u8>, String, [u64; 3])| {
            Ok((name.clone(), Array::copy(slf.py(), data, code)?, *shape))
        };
        let arrays = arrays.iter().map(copy).collect::<PyResult<Vec<_>>>()?;
        let config = convert::copied_text(config)?;
        let bytes = arrays.iter().map(|(_, array, _)| array.byte_len()).sum();
        let numbers: usize = arrays.iter().map(|(_, array, _)| array.len()).sum();
        Self::add(slf, tag, step, walltime, bytes, 20 * numbers, move |record| {
            let numbers = arrays.iter().map(|(name, array, shape)| {
                let mut numbers = Vec::with_capacity(array.len());
                array.for_each(|number| numbers.push(number as f32));
                (name.as_str(), numbers, *shape)
            });
            let numbers: Vec<_> = numbers.collect();
            let part = |wanted| {
                let found = numbers.iter().find(|(name, ..)| *name == wanted);
                found.map(|(_, values, shape)| MeshTensor { shape: *shape, values })
            };
            let Some(vertices) = part("vertices") else { return };
            let name = record.name().to_owned();
            let mesh =
                Mesh { name: &name, config: &config, vertices, faces: part("faces"), colors: part("colors") };
            let mut message = Vec::new();
            mesh.summaries().for_each(|(tag, summary)| summary.encode(&tag, &mut message));
            record.set_value(Encoded::Summary(message.into()));
        })
    }

    /// Adds the charts of the tab of custom scalars: categories, each with charts, each with its title, whether it is a margin chart, and
    /// its tags.
    fn _add_layout(slf: &Bound<'_, Self>, categories: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = convert::copied_bytes(categories, 5)?;
        check_memory(bytes, "a copy of the charts")?;
        let categories: Vec<CategoryRow> = categories.extract()?;
        // What borrows from them, and a message that grows by doubling; and copies of that until it is on the disk.
        Self::add(slf, LAYOUT, None, None, bytes, bytes.saturating_mul(8), move |record| {
            layout::encode(record, &categories);
        })
    }

    /// Adds hyper-parameters and metrics to a sub-run, or to the run itself.
    fn _add_hparams(
        slf: &Bound<'_, Self>,
        sub_run: Option<&str>,
        settings: &Bound<'_, PyAny>,
        metrics: &Bound<'_, PyAny>,
        step: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (step, walltime) = Self::place(slf, step, None)?;
        let sub_run = sub_run.map(sub_run_of).transpose()?.map(|name| intern(&name));
        let bytes = convert::copied_bytes(settings, 3)?.saturating_add(convert::copied_bytes(metrics, 2)?);
        // Messages grow by doubling.
        check_memory(bytes.saturating_mul(3), "the texts of hyper-parameters")?;
        let settings: Vec<SettingRow> = settings.extract()?;
        let metrics: Vec<(String, f64)> = metrics.extract()?;
        Self::with(slf, |core| {
            let within = |record: Record| {
                let record = convert::placed(record, step, walltime);
                Point::new(match &sub_run {
                    Some(name) => record.with_sub_run(name.clone()),
                    None => record,
                })
            };
            for encoded in hparams::encode(&settings, &metrics) {
                core.collect(slf.py(), within(Record::with_value("hparams", encoded)));
            }
            for (tag, value) in &metrics {
                core.collect(slf.py(), within(Record::scalar(intern(tag), *value)));
            }
        })
    }

    /// Adds an encoded `Summary`.
    fn _add_summary(
        slf: &Bound<'_, Self>,
        message: &[u8],
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let (message, bytes) = (copied(message)?, message.len());
        Self::add(slf, "summary", step, walltime, bytes, 3 * bytes, move |record| {
            record.set_value(Encoded::Summary(message.into()));
        })
    }

    /// Adds the graph of a model, and what was measured of it: encoded messages `GraphDef` and `RunMetadata`.
    fn _add_graph(
        slf: &Bound<'_, Self>,
        graph: &[u8],
        run_metadata: Option<&[u8]>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let add = |field, message: &[u8]| {
            let mut event = space(message.len() + 16)?;
            work::push_bytes(&mut event, field, message);
            Self::add_event(slf, event, None, walltime)
        };
        add(4, graph)?;
        let Some(run_metadata) = run_metadata else { return Ok(()) };
        let mut tagged = space(run_metadata.len() + 32)?;
        work::push_bytes(&mut tagged, 1, b"step1");
        work::push_bytes(&mut tagged, 2, run_metadata);
        add(8, &tagged)
    }

    /// Adds an encoded `Event` without its time and its step.
    fn _add_event(
        slf: &Bound<'_, Self>,
        message: &[u8],
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        Self::add_event(slf, copied(message)?, step, walltime)
    }

    /// Waits until everything that was added before is in its file. Returns what there is to say of errors.
    fn _flush(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        // A child has nothing to flush.
        let Some(core) = self.core.load_full().filter(|core| !core.home.is_left()) else {
            return Ok(Vec::new());
        };
        core.has_said_too_large.store(false, Ordering::Relaxed);
        watch::interruptible(py, move || {
            match core.collector.flush() {
                Ok(_) | Err(FlushError::Forked) => {}
                Err(error) => core.said.push(error.to_string()),
            }
            core.said.take()
        })
    }

    /// Writes what is left, and closes the files. The result is what there is to say of errors and losses. Returns `None` if it is closed.
    fn _close(&self, py: Python<'_>, timeout: f64) -> Option<Work> {
        let core = self.core.swap(None)?;
        let closed = self.closed.load_full();
        // Of a close that takes long, this is the account meanwhile.
        if let Ok(mut closed) = closed.enter() {
            *closed = core.account();
        }
        let collector = core.collector.clone();
        let ignored = Arc::clone(&self.ignored);
        let close = move || {
            match core.collector.stop_timeout(convert::duration(timeout)) {
                Ok(report) if report.stats.processed < report.stats.offered => {
                    core.said.push(format!("not everything that was added is in the file: {}", report.stats));
                }
                Ok(_) | Err(StopError::Forked) => {}
                Err(error) => core.said.push(error.to_string()),
            }
            ignored.fetch_add(core.collector.stats().rejected.forked, Ordering::Relaxed);
            if let Ok(mut closed) = closed.enter() {
                *closed = core.account();
            }
            core.said.take()
        };
        Some(Work::begin(py, move || collector.pending(), close))
    }

    /// Returns the account of what was added since it was opened last.
    fn _stats(&self) -> Account {
        let mut ignored = self.ignored.load(Ordering::Relaxed);
        let mut account = match &*self.core.load() {
            Some(core) => {
                ignored += core.collector.stats().rejected.forked;
                // A child does not have the account of its parent.
                if core.home.is_left() { no_account() } else { core.account() }
            }
            // Of a child that has opened none, it is the parent's.
            None => self.closed.load().enter().map_or_else(|_| no_account(), |closed| closed.clone()),
        };
        account.insert("ignored", ignored);
        account
    }

    /// Has the worker open a file to read. A named pipe that nobody writes to holds it there, as a disk does that hangs. For tests.
    fn _hang_on(slf: &Bound<'_, Self>, path: PathBuf) -> PyResult<()> {
        Self::add(slf, "hang", None, None, 0, 0, move |_| drop(std::fs::File::open(path)))
    }

    /// Opens it if it is closed. Returns the folder that this process writes to, or `None` where it writes nothing, which counts nothing.
    fn _reopen(slf: &Bound<'_, Self>) -> PyResult<Option<PathBuf>> {
        match Self::opened(slf)? {
            Some(core) if !core.home.is_left() => slf.get()._folder(),
            _ => Ok(None),
        }
    }

    /// Counts a call that adds nothing.
    fn _ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// The folder that this process writes to, or `None` where it writes nothing.
    #[getter]
    fn _folder(&self) -> PyResult<Option<PathBuf>> {
        let settings = self.settings()?;
        let is_elsewhere = self.is_elsewhere()?;
        Ok((!is_elsewhere || settings.reopens_in_child).then(|| settings.folder_in(is_elsewhere)))
    }

    /// The folder of the process that made it, as an absolute path.
    #[getter]
    fn _root(&self) -> PyResult<PathBuf> {
        Ok(self.settings()?.folder.clone())
    }

    /// Returns whether this writer began a file in this process. The path has no symbolic links.
    fn _has_begun(&self, path: PathBuf) -> bool {
        self.begun.load().has(&path)
    }

    /// Sets whether the attribute `_defaults` counts.
    #[setter]
    fn _has_defaults(&self, has_defaults: bool) {
        self.has_defaults.store(has_defaults, Ordering::Relaxed);
    }

    /// Returns whether it is open.
    #[getter]
    fn _is_open(&self) -> bool {
        self.core.load().is_some()
    }
}

/// Gives a record a value of TensorBoard under its own name.
fn encode(record: &mut Record, summary: Summary<'_>) {
    let name = record.shared_name().clone();
    work::encode(record, &name, summary);
}

/// Gives a record an image that is shown as one of this height, width and number of channels.
fn encode_image(record: &mut Record, pixels: &Pixels, shown: [usize; 3]) {
    // What is no image has no value, which the sink leaves out.
    if let Ok(file) = pixels.png() {
        encode_file(record, &file, shown);
    }
}

fn encode_file(record: &mut Record, encoded: &[u8], shown: [usize; 3]) {
    let [height, width, colorspace] = shown.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    encode(record, Summary::LegacyImage { width, height, colorspace, encoded });
}

impl Writer {
    /// Calls `body` with what it works with. Opens the writer first where it is closed. Where it writes nothing, that is counted.
    #[inline]
    fn with(slf: &Bound<'_, Self>, body: impl FnOnce(&Core)) -> PyResult<()> {
        match &*slf.get().core.load() {
            Some(core) if !core.home.is_left() => body(core),
            core => match slf.get().reopened(slf, core.as_ref())? {
                Some(core) => body(&core),
                None => slf.get()._ignore(),
            },
        }
        Ok(())
    }

    /// Returns what it works with. Opens the writer first where it is closed. Returns `None` for a copy that writes nothing.
    fn opened(slf: &Bound<'_, Self>) -> PyResult<Option<Arc<Core>>> {
        match slf.get().core.load_full() {
            Some(core) if !core.home.is_left() => Ok(Some(core)),
            core => slf.get().reopened(slf, core.as_ref()),
        }
    }

    /// Returns the step and the moment of what is added with these arguments.
    #[inline]
    fn place(
        slf: &Bound<'_, Self>,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<(Option<i64>, Option<f64>)> {
        let step = convert::step(step)?;
        if !slf.get().has_defaults.load(Ordering::Relaxed) {
            return Ok((step, walltime));
        }
        let defaults: (Option<i64>, Option<f64>) = slf.getattr("_defaults")?.extract()?;
        Ok((step.or(defaults.0), walltime.or(defaults.1)))
    }

    fn add_event(
        slf: &Bound<'_, Self>,
        message: Vec<u8>,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
    ) -> PyResult<()> {
        let bytes = message.len();
        Self::add(slf, "event", step, walltime, bytes, 3 * bytes, move |record| {
            record.set_value(Encoded::Event(message.into()));
        })
    }

    /// Adds a point that `run` completes on the worker, from data of so many `bytes`. `makes` is about the most that this takes beside
    /// them, in bytes, until it is written.
    fn add(
        slf: &Bound<'_, Self>,
        tag: &str,
        step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
        bytes: usize,
        makes: usize,
        run: impl FnOnce(&mut Record) + Send + Sync + 'static,
    ) -> PyResult<()> {
        let (step, walltime) = Self::place(slf, step, walltime)?;
        Self::with(slf, |core| {
            let record = convert::placed(Record::new(intern(tag)), step, walltime);
            let point = Point::with_work(record, bytes, makes, run);
            if bytes.saturating_add(SPACE) > MAX_EVENT_BYTES {
                core.note_size(&point);
            }
            core.collect(slf.py(), point);
        })
    }

    /// Returns what a writer works with that is closed, or was opened by another process. Returns `None` where it cannot be opened, and logs
    /// that the first time: a loop does not end for that.
    #[cold]
    fn reopened(&self, slf: &Bound<'_, Self>, left: Option<&Arc<Core>>) -> PyResult<Option<Arc<Core>>> {
        if self.is_elsewhere()? && !self.settings()?.reopens_in_child {
            // The collector of the parent counts what is given to it.
            return Ok(left.cloned());
        }
        let (now, pause) = (convert::now(), RETRY.as_nanos() as u64);
        let retry_at = self.retry_at.load(Ordering::Relaxed);
        // Within the pause, unless the clock was set back.
        let is_early = (1..=pause).contains(&retry_at.saturating_sub(now));
        let error = match is_early {
            true => None,
            false => match self.open(slf, None) {
                Ok(core) => {
                    self.retry_at.store(0, Ordering::Relaxed);
                    return Ok(Some(core));
                }
                // What a handler of a signal raises is none of ours.
                Err(error) if !error.is_instance_of::<PyException>(slf.py()) => return Err(error),
                Err(error) => Some(error),
            },
        };
        if let Some(error) = error {
            let is_first = self.retry_at.swap(now.saturating_add(pause), Ordering::Relaxed) == 0;
            if is_first && let Err(error) = slf.call_method1("_not_opened", (error.to_string(),)) {
                // A log that fails harms nothing.
                return if error.is_instance_of::<PyException>(slf.py()) { Ok(None) } else { Err(error) };
            }
        }
        Ok(None)
    }

    /// Returns whether the process is another than that which made it.
    fn is_elsewhere(&self) -> PyResult<bool> {
        Ok(self.opening.check().is_err() || self.settings()?.is_copy)
    }

    fn settings(&self) -> PyResult<&Settings> {
        let unset = "the `__init__` of SummaryWriter must be called before its methods";
        self.settings.get().ok_or_else(|| PyRuntimeError::new_err(unset))
    }

    /// Begins a file, unless another thread has meanwhile.
    fn open(&self, slf: &Bound<'_, Self>, purge_step: Option<i64>) -> PyResult<Arc<Core>> {
        let settings = self.settings()?;
        let watches = slf.call_method0("_watches_sigterm")?.is_truthy()?;
        let core = slf.py().detach(|| {
            // In a child, the lock is the parent's.
            let lock = self.opening.enter();
            if let Some(core) = self.core.load_full().filter(|core| !core.home.is_left()) {
                return Ok(core);
            }
            let is_elsewhere = lock.is_err() || settings.is_copy;
            if self.begun.load().0.check().is_err() {
                // Those are the parent's.
                self.begun.store(Arc::default());
            }
            if self.closed.load().check().is_err() {
                self.closed.store(Arc::new(Mutex::new(no_account())));
            }
            let begun = self.begun.load_full();
            let core = Arc::new(Core::open(settings, purge_step, is_elsewhere, watches, begun)?);
            self.core.store(Some(Arc::clone(&core)));
            PyResult::Ok(core)
        })?;
        // So that it is closed at the end of this process.
        static REGISTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        REGISTER.import(slf.py(), "forebay._lifecycle", "register")?.call1((slf,))?;
        Ok(core)
    }
}

impl Core {
    fn open(
        settings: &Settings,
        purge_step: Option<i64>,
        is_elsewhere: bool,
        watches: bool,
        begun: Arc<Begun>,
    ) -> PyResult<Self> {
        let folder = settings.folder_in(is_elsewhere);
        let sink = match purge_step {
            Some(step) => TensorBoardSink::resume(folder, u64::try_from(step).unwrap_or(0))?,
            // A run that goes on without one has its earlier points shown.
            None => TensorBoardSink::create(folder)?.earlier_points(EarlierPoints::Keep)?,
        };
        // As PyTorch's writer does all three.
        let sink = sink
            .tags(Tags::Verbatim)
            .missing_steps(MissingStep::Zero)
            .backward_steps(BackwardStep::Write)
            .filename_suffix(settings.filename_suffix.as_str())?
            .on_file(move |path| begun.add(path));
        let said = Said::default();
        let heard = said.clone();
        let collector = Builder::<Point>::new()
            .on_log(said.hook())
            .capacity(CAPACITY)
            .critical_capacity(1)
            .low_capacity(1)
            .max_bytes(MAX_BYTES)
            .overflow(Overflow::Block { timeout: MAX_WAIT })
            .flush(FlushStrategy::Hybrid { events: 1_000, interval: settings.interval })
            .enrich(move |point: &mut Point, _| {
                if !point.complete() {
                    heard.leave_out(point.name());
                }
            })
            .sink(sink)
            .start()
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        // Where the system refuses it, SIGTERM costs the last second.
        let watch = || Signals::builder(&collector).only(SIGTERM).start().ok();
        let signals = if watches && sigterm_is_free() { watch() } else { None };
        let (is_stalled, has_said_too_large) = (PlainBool::new(false), PlainBool::new(false));
        Ok(Self { collector, home: Home::here(), is_stalled, has_said_too_large, said, _signals: signals })
    }

    /// Returns what became of everything that was added.
    fn account(&self) -> Account {
        let stats = self.collector.stats();
        HashMap::from([
            ("offered", stats.offered),
            ("processed", stats.processed),
            ("pending", stats.pending),
            ("evicted", stats.evicted),
            ("rejected", stats.rejected.total() + stats.oversize),
            ("failed", stats.sinks.iter().map(|sink| sink.failed).sum()),
            ("waits", stats.waits),
        ])
    }

    /// Collects a point. Where that waits for space, other threads of Python run meanwhile.
    #[inline]
    fn collect(&self, py: Python<'_>, point: Point) {
        match self.collector.collect_unless_full(point) {
            Ok(_) if self.is_stalled.load(Ordering::Relaxed) => self.end_stall(),
            Ok(_) => {}
            Err(full) => self.collect_full(py, full),
        }
    }

    /// Says of the first event since the last flush that the queue never has room for it.
    #[cold]
    fn note_size(&self, point: &Point) {
        let bytes = Event::size_hint(point) - size_of::<Point>();
        if bytes > MAX_EVENT_BYTES && !self.has_said_too_large.swap(true, Ordering::Relaxed) {
            self.said.refuse(point.name(), bytes, MAX_EVENT_BYTES);
        }
    }

    /// Waits for space, unless a call has done so in vain. A disk that hangs costs the program `MAX_WAIT` and no more: what finds the
    /// queue full from then on is rejected and counted.
    #[cold]
    fn collect_full(&self, py: Python<'_>, full: FullLane<'_, Point>) {
        if self.is_stalled.load(Ordering::Relaxed) {
            full.reject();
        } else if py.detach(|| full.wait()) == Outcome::Full {
            self.is_stalled.store(true, Ordering::Relaxed);
            self.said.push(format!(
                "the queue was full for {MAX_WAIT:?}: what finds it full is dropped and counted until half of it is free"
            ));
        }
    }

    /// Has calls wait again once half of the queue is free: one place alone is free again at once where the disk is slow.
    #[cold]
    fn end_stall(&self) {
        if self.collector.pending() <= CAPACITY as u64 / 2
            && self.collector.pending_bytes() <= MAX_BYTES as u64 / 2
        {
            self.is_stalled.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Writer {
    /// Ends the collector, which waits for its worker, detached.
    fn drop(&mut self) {
        let Some(core) = self.core.swap(None) else { return };
        let end = || {
            // Whoever lets go of the signals last would otherwise stop it without them: SIGTERM would end the process meanwhile.
            let _ = core.collector.stop_timeout(core.collector.config().drop_timeout);
            drop(core);
        };
        // While the interpreter ends, there is nobody to let run.
        let mut end = Some(end);
        Python::try_attach(|py| py.detach(|| end.take().map(|end| end())));
        if let Some(end) = end {
            end();
        }
    }
}
