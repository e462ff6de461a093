//! The builder of a training run.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{
    Life, Rank, RunError, RunIdentity, RunInfo, Stage, TrainingRun, failed, folder, identified, last_panic,
};
use crate::collector::{Collector, FlushError};
use crate::config::check;
use crate::event::catalog::training;
use crate::event::{Event, Fields, Record};
use crate::origin::new_id;
use crate::reply::Reply;
use crate::sync::{self, Arc, Condvar, Mutex, PlainU64};

/// Builder of a [`TrainingRun`]. [`start`](Self::start) begins the run.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `start`"]
pub struct RunBuilder {
    run_id: Option<String>,
    name: Option<String>,
    generation: u64,
    first_step: Option<u64>,
    config: Fields,
    model_type: Option<String>,
    rank: Option<Rank>,
    heartbeat: Duration,
}

impl TrainingRun {
    /// Returns a builder of a run with a new id, without settings.
    pub fn builder() -> RunBuilder {
        RunBuilder::new()
    }
}

impl RunBuilder {
    pub(super) fn new() -> Self {
        Self {
            run_id: None,
            name: None,
            generation: 1,
            first_step: None,
            config: Fields::new(),
            model_type: None,
            rank: None,
            heartbeat: Duration::from_secs(10),
        }
    }

    /// Sets the id of the run. Defaults to a UUID that sorts by time (version 7).
    pub fn run_id(mut self, id: impl Into<String>) -> Self {
        self.run_id = Some(id.into());
        self
    }

    /// Names the run, for people: `digits`. Two runs may have one name. [`start`](Self::start) refuses an empty
    /// one. By default it has none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Creates a new folder for the run in `runs`, named after the time in UTC and the name of the run:
    /// `runs/2026-11-28_14-30-05_digits`. The folder has at most 120 bytes of the name of the run. See
    /// [`run::folder`](crate::run::folder).
    ///
    /// # Errors
    ///
    /// Returns the error of the system, with the path that it names.
    ///
    /// ```
    /// use forebay::run::TrainingRun;
    /// use forebay::{Collector, sink::JsonLinesSink};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let parent = tempfile::tempdir()?;
    /// # let runs = parent.path().join("runs");
    /// let run = TrainingRun::builder().name("digits");
    /// let folder = run.folder(runs)?; // "runs"
    /// let collector = Collector::builder().sink(JsonLinesSink::create(folder.join("events.jsonl"))?).start()?;
    /// let run = run.start(&collector)?;
    /// assert!(folder.to_str().is_some_and(|path| path.ends_with("_digits")));
    /// run.completed([("val_accuracy", 0.97)])?;
    /// let report = collector.stop()?;
    /// assert_eq!(report.run.and_then(|run| run.name).as_deref(), Some("digits"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn folder(&self, runs: impl AsRef<Path>) -> io::Result<PathBuf> {
        folder::create(runs.as_ref(), self.name.as_deref())
    }

    /// Sets the settings of the run, which TensorBoard shows as hyper-parameters. Defaults to none.
    pub fn config(mut self, config: impl Into<Fields>) -> Self {
        self.config = config.into();
        self
    }

    /// Sets what is trained.
    pub fn model_type(mut self, model: impl Into<String>) -> Self {
        self.model_type = Some(model.into());
        self
    }

    /// Continues an earlier run, as its next generation. `step` is the first step that this process does. The earlier events of that step
    /// and later ones stay, but are superseded (`forebay_history::EventQuery::current`). Give the same step to
    /// [`TensorBoardSink::resume`](crate::sink::TensorBoardSink::resume).
    ///
    /// [`flush`](Collector::flush) before you save a checkpoint. A process that is killed loses the events of its last interval, and a
    /// resume from that checkpoint does not report those before it again.
    pub fn resume(mut self, earlier: &RunInfo, step: u64) -> Self {
        self.run_id = Some(earlier.run_id.clone());
        self.name = self.name.or_else(|| earlier.name.clone());
        self.generation = earlier.generation.saturating_add(1);
        self.first_step = Some(step);
        self
    }

    /// Sets which process of the run this is. Defaults to what the environment says ([`Rank::from_env`]).
    pub fn rank(mut self, rank: Rank) -> Self {
        self.rank = Some(rank);
        self
    }

    /// Sets the interval at which the run reports that its process lives, a millisecond or more. Readers take the run for vanished
    /// after three intervals without an event. Every heartbeat is a critical event, so it delivers what else is pending. Defaults to
    /// 10 s.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// Begins the run, and reports that. From then on, what the collector collects belongs to this run, also if an earlier one has not
    /// ended: see [`TrainingRun`].
    ///
    /// # Errors
    ///
    /// A setting is outside of what is allowed; the environment contradicts itself; what was collected before is not
    /// delivered in time; the collector is stopped; no thread could be created. Only in the last case, begin and end are reported.
    pub fn start<E: Event + From<Record>>(
        self,
        collector: &Collector<E>,
    ) -> Result<TrainingRun<E>, RunError> {
        let run_id = self.run_id.unwrap_or_else(new_id);
        check("run_id", format!("{run_id:?}"), "a text that is not empty", !run_id.is_empty())?;
        check("name", "\"\"", "a text that is not empty", self.name.as_deref() != Some(""))?;
        let heartbeat = self.heartbeat;
        let allowed = "a millisecond or more";
        check("heartbeat", format!("{heartbeat:?}"), allowed, heartbeat >= Duration::from_millis(1))?;
        let rank = self.rank.map_or_else(Rank::from_env, Ok)?;
        last_panic::listen();
        // What was collected before comes before the begin.
        match collector.shared.flush(Reply::unheard(), collector.config().flush_timeout) {
            // Its events come behind the begin then, or it refuses the begin.
            Ok(_) | Err(FlushError::NotStarted | FlushError::Stopped) => {}
            // They would come behind the begin, and belong before it.
            Err(error) => return Err(error.into()),
        }
        let identity = Arc::new(RunIdentity { run_id, name: self.name, generation: self.generation });
        let started = training::Started {
            run_id: identity.run_id.clone(),
            config: self.config,
            model_type: self.model_type,
        };
        let mut started = identified(Record::from(started), &identity)
            .with_field("rank", rank.rank)
            .with_field("world_size", rank.world_size)
            .with_field("heartbeat", heartbeat)
            .with_session_id(collector.session_id());
        if let Some(local_rank) = rank.local_rank {
            started = started.with_field("local_rank", local_rank);
        }
        if let Some(step) = self.first_step {
            started = started.with_field("first_step", step);
        }
        let before = collector.shared.run.replace(Some(Arc::clone(&identity)));
        let outcome = collector.collect(started);
        if !outcome.is_queued() {
            collector.shared.run.replace(before);
            return Err(RunError::NotCollected(outcome));
        }
        let life = Arc::new(Life {
            collector: collector.clone(),
            identity,
            rank,
            began: Instant::now(),
            heartbeat,
            epoch: PlainU64::new(0),
            next_step: PlainU64::new(self.first_step.unwrap_or(0)),
            stage: Mutex::new(Stage::Running),
            is_beating: PlainU64::new(0),
            changed: Condvar::new(),
        });
        let mut run = TrainingRun { life: Arc::clone(&life), heartbeat_thread: None };
        match sync::spawn("forebay-heart", None, move || life.send_heartbeats()) {
            Ok(thread) => {
                run.heartbeat_thread = Some(thread);
                Ok(run)
            }
            Err(error) => {
                // A run without heartbeats would seem to have vanished.
                let _ = run.life.end(failed("no thread for the heartbeat", None, None));
                Err(RunError::Thread(error))
            }
        }
    }
}
