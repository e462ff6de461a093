//! `Builder` and `Sampler`: how often series are sampled, and by whom.

use std::fmt;
use std::time::Duration;

use forebay::{Collector, Event, ManualClock, Record};
use forebay_task::{self as task, Gather, Task};

use crate::recorder::{ChosenBounds, MetricsRecorder};

/// Builder of a [`MetricsRecorder`] and its [`Sampler`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use forebay::{Collector, Value, sink::MemorySink};
/// use metrics::counter;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// let sampler = forebay_metrics::Builder::new().interval(Duration::from_secs(3600)).install(&collector)?;
/// for _ in 0..1000 {
///     counter!("requests", "route" => "/").increment(1);
/// }
/// sampler.stop(); // takes the last sample
/// collector.stop()?;
/// assert_eq!(memory.events().len(), 1);
/// assert_eq!(memory.events()[0].value(), &Value::Integer(1000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    interval: Duration,
    max_series: usize,
    bounds: ChosenBounds,
    clock: Option<ManualClock>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            max_series: 10_000,
            bounds: ChosenBounds::default(),
            clock: None,
        }
    }
}

/// Error of a recorder that cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The program has a global recorder already.
    #[error("a recorder of metrics is installed already")]
    AlreadyInstalled,
    /// The interval is zero, or the thread of the sampler could not be started.
    #[error("the sampler could not be started: {0}")]
    Task(#[from] task::TaskError),
    /// The bounds of histograms are none, are not finite, or do not ascend.
    #[error("bounds of histograms must be finite and ascend, got {0:?}")]
    Bounds(Vec<f64>),
}

impl Builder {
    /// Begins with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time between two samples, more than zero. Defaults to 10 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the most series: pairs of a kind, a name and labels. Handles for more do nothing, and are counted: see
    /// [`MetricsRecorder::refused`] and the event `forebay.metrics.refused`. So do handles whose name and labels have more than 4 KiB. Defaults to 10,000. A histogram has 6 KB, or 8
    /// bytes for each of its bounds.
    pub fn max_series(mut self, series: usize) -> Self {
        self.max_series = series;
        self
    }

    /// Sets the bounds between the bins of all histograms, so that every sample has the same: for a destination that adds them up. A number on a
    /// bound is above it. The record has the metadata `metric.min` and `metric.max`, because its outer edges are no longer the smallest and the
    /// largest number where those lie between the bounds. Defaults to bins as wide as an eighth of their lower edge, those that have numbers.
    ///
    /// ```
    /// use forebay::{Collector, sink::MemorySink};
    /// use metrics::{histogram, with_local_recorder};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = MemorySink::new();
    /// let collector = Collector::builder().sink(memory.clone()).start()?;
    /// let builder = forebay_metrics::Builder::new().histogram_bounds([0.01, 0.1, 1.0]);
    /// let (recorder, sampler) = builder.histogram_bounds_of("bytes", [1e3, 1e6]).start(&collector)?;
    /// with_local_recorder(&recorder, || histogram!("seconds").record(0.05));
    /// sampler.stop();
    /// collector.stop()?;
    /// let forebay::Value::Histogram(seconds) = memory.events()[0].value().clone() else { return Err("no histogram".into()) };
    /// assert_eq!(seconds.edges()[1..4], [0.01, 0.1, 1.0]);
    /// assert_eq!(seconds.counts(), [0, 1, 0, 0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn histogram_bounds(mut self, bounds: impl IntoIterator<Item = f64>) -> Self {
        self.bounds.of_others = Some(bounds.into_iter().collect());
        self
    }

    /// Sets the bounds of the histograms of a name, whatever those of all are.
    pub fn histogram_bounds_of(
        mut self,
        name: impl Into<String>,
        bounds: impl IntoIterator<Item = f64>,
    ) -> Self {
        self.bounds.by_name.insert(name.into(), bounds.into_iter().collect());
        self
    }

    /// Lets the interval go by a clock that is moved by hand, for tests.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Starts a recorder that is not the global one, for `metrics::with_local_recorder` or for one of several.
    ///
    /// # Errors
    ///
    /// The interval is zero, bounds do not ascend, or the thread could not be started.
    pub fn start<E: Event + From<Record>>(
        self,
        collector: &Collector<E>,
    ) -> Result<(MetricsRecorder, Sampler), InstallError> {
        if let Some(wrong) = self.bounds.wrong() {
            return Err(InstallError::Bounds(wrong.to_vec()));
        }
        let recorder = MetricsRecorder::new(collector, self.max_series, self.bounds);
        let sampled = recorder.clone();
        let mut ticks = task::interval(self.interval).capacity(1);
        if let Some(clock) = &self.clock {
            ticks = ticks.manual_clock(clock);
        }
        // The first tick comes at once, when there is nothing.
        let task = ticks
            .map(move |tick| if *tick > 0 { sampled.sample() } else { 0 })
            .gather(Gather::count())
            .start()?;
        Ok((recorder.clone(), Sampler { recorder, task: Some(task) }))
    }

    /// Starts a recorder, and makes it that of the whole program.
    ///
    /// # Errors
    ///
    /// The program has a recorder already, the interval is zero, bounds do not ascend, or the thread could not be started.
    pub fn install<E: Event + From<Record>>(self, collector: &Collector<E>) -> Result<Sampler, InstallError> {
        let (recorder, sampler) = self.start(collector)?;
        metrics::set_global_recorder(recorder).map_err(|_| InstallError::AlreadyInstalled)?;
        Ok(sampler)
    }
}

/// Owner of the thread that samples a recorder. Its drop is a [`stop`](Self::stop).
///
/// It holds a handle of the collector until then, which the recorder does not. Stop it before the collector: what is recorded after the last
/// sample is in no event.
#[must_use = "its drop ends the samples"]
pub struct Sampler {
    recorder: MetricsRecorder,
    /// `None` once it has ended.
    task: Option<Task<u64>>,
}

impl Sampler {
    /// Returns the recorder.
    pub fn recorder(&self) -> &MetricsRecorder {
        &self.recorder
    }

    /// Collects what has changed since the last sample, now: see [`MetricsRecorder::sample`].
    pub fn sample(&self) -> u64 {
        self.recorder.sample()
    }

    /// Takes the last sample, and ends the thread. Waits at most a second for a sample that is being taken, and one for space in the queue. In a forked child, where the
    /// thread is the parent's, nothing is sampled.
    pub fn stop(self) {}
}

impl Drop for Sampler {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        task.cancel();
        // A sample that is being taken goes first: a counter never seems to fall.
        drop(task.wait_timeout(Duration::from_secs(1)));
        self.recorder.sample();
        self.recorder.end();
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}
