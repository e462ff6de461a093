//! Choices of the caller: which tag a name has, and what happens to steps that are missing or go backward.

use std::fmt;
use std::path::Path;

use tfevents::Encoder;

use crate::sync::{Arc, Home, catch_panic};

/// How far, in seconds, the time of a value may be from that of the event that takes it. What one step of a loop logs is closer, and shares
/// an event; a time that somebody chose is kept.
const SHARED_TIME: f64 = 0.1;

/// Code of the caller that hears of every file; see [`TensorBoardSink::on_file`](super::TensorBoardSink::on_file).
pub(super) type OnFile = Arc<dyn Fn(&Path) + Send + Sync>;

/// Settings of a sink, which hold for each of its folders.
pub(super) struct Settings {
    pub(super) backward: BackwardStep,
    pub(super) earlier: EarlierPoints,
    pub(super) missing: MissingStep,
    pub(super) tags: Tags,
    /// End of the names of files.
    pub(super) suffix: String,
    pub(super) max_tags: usize,
    pub(super) max_tag_bytes: usize,
    /// Most files of sub-runs that are open at once, at least 1.
    pub(super) max_open_runs: usize,
    /// First step of the run, where it goes on.
    pub(super) first_step: i64,
    /// Seconds since 1970 at which the sink was created.
    pub(super) created_at: u64,
    pub(super) on_file: Option<OnFile>,
}

impl Settings {
    pub(super) fn new() -> Self {
        Self {
            backward: BackwardStep::default(),
            earlier: EarlierPoints::default(),
            missing: MissingStep::default(),
            tags: Tags::default(),
            suffix: String::new(),
            max_tags: 100_000,
            max_tag_bytes: 16 << 20,
            max_open_runs: 32,
            first_step: 0,
            created_at: crate::clock::unix_nanos() / 1_000_000_000,
            on_file: None,
        }
    }

    /// Returns whether a record may have code of the caller run, which may fork.
    pub(super) fn has_user_code(&self) -> bool {
        matches!(self.tags, Tags::Mapped(_)) || self.on_file.is_some()
    }

    /// Returns the encoder of another folder.
    pub(super) fn encoder(&self) -> Encoder {
        Encoder::new()
            .with_writer(concat!("forebay ", env!("CARGO_PKG_VERSION")))
            .with_max_tags(self.max_tags)
            .with_max_tag_bytes(self.max_tag_bytes)
            .with_shared_time(SHARED_TIME)
            .with_backward_steps(self.backward == BackwardStep::Write)
    }
}

/// Policy of a [`TensorBoardSink`](super::TensorBoardSink) for a step before the last one of its tag.
///
/// TensorBoard deletes the points of a tag from such a step on. That is right where a run was resumed and goes over
/// steps again, and wrong where two threads merely came in the wrong order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BackwardStep {
    /// The value is refused, and counted as failed. The default.
    #[default]
    Refuse,
    /// A new file begins at that step, as for a run that was resumed: from there on, the new points take the place of
    /// the old ones. The old ones stay in the older file.
    NewFile,
    /// The value is written as it is, as PyTorch's writer does. One of TensorBoard's loaders (rustboard, its default) then
    /// shows no older point of the tag from that step on; the other shows all of them.
    Write,
}

/// What becomes of the points that earlier files of the folder of a [`TensorBoardSink`](super::TensorBoardSink) have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EarlierPoints {
    /// TensorBoard shows none of those at the first step of the new file and later ones: a run that starts over, or goes on at an
    /// earlier step, takes their place. The default.
    #[default]
    Hide,
    /// TensorBoard shows them beside the new ones, as with PyTorch's writer without a `purge_step`.
    Keep,
}

/// Step that a [`TensorBoardSink`](super::TensorBoardSink) gives to a value without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MissingStep {
    /// The step after the last one of its tag, from 0. The default.
    #[default]
    Next,
    /// Step 0, each time, as PyTorch's writer does. TensorBoard shows the last value alone. A tag that has had a later step
    /// goes backward then: see [`BackwardStep`].
    Zero,
}

/// Mapping of the names of records, fields and metrics to the tags under which TensorBoard shows them.
///
/// ```
/// use forebay::sink::{TensorBoardSink, Tags};
///
/// # fn main() -> std::io::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// let sink = TensorBoardSink::create(folder.path())?
///     .tags(Tags::mapped(|name| format!("mine/{}", name.trim_start_matches("train."))));
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
#[non_exhaustive]
pub enum Tags {
    /// The name with `/` for every `.`, so that `train.loss` stands in the group `train`. The default.
    #[default]
    Slashes,
    /// The name as it is.
    Verbatim,
    /// What a function makes of the name: see [`mapped`](Self::mapped).
    Mapped(Box<dyn Fn(&str) -> String + Send>),
}

impl Tags {
    /// Makes a mapping by a function. The worker calls it for the name of every record, and of each field and metric that is
    /// shown behind it. Where it panics, the record fails alone.
    pub fn mapped(map: impl Fn(&str) -> String + Send + 'static) -> Self {
        Self::Mapped(Box::new(map))
    }

    /// Appends what a name becomes. The error is the message of a panic. In a forked child of `home`, nothing is appended.
    pub(super) fn push(&self, tag: &mut String, name: &str, home: Home) -> Result<(), String> {
        match self {
            Self::Slashes => {
                for (place, part) in name.split('.').enumerate() {
                    if place > 0 {
                        tag.push('/');
                    }
                    tag.push_str(part);
                }
            }
            Self::Verbatim => tag.push_str(name),
            Self::Mapped(map) => {
                let mapped = catch_panic(|| map(name))?;
                home.check().map_err(|forked| forked.to_string())?;
                tag.push_str(&mapped);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slashes => "Slashes",
            Self::Verbatim => "Verbatim",
            Self::Mapped(_) => "Mapped(..)",
        })
    }
}

/// Returns a moment as the files have it.
pub(super) fn seconds(nanos: u64) -> f64 {
    // Whole seconds by themselves: an `f64` of nanoseconds since 1970 is 256 of them coarse, twice as much as the result.
    (nanos / 1_000_000_000) as f64 + (nanos % 1_000_000_000) as f64 / 1e9
}
