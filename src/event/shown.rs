//! Curves of a record: what TensorBoard and the reading side show of it, and of the events by which a training run reports itself.
//!
//! JSON Lines and SQLite keep all of them. Each of their numbers as a scalar would be a card: fifteen of them
//! (`training/started/rank`, `training/epoch_completed/duration`) around the few curves that people want to see.

use std::borrow::Cow;

use super::catalog::{model, training};
use super::{Event, Fields, Record, Value};

/// Part of a record that is shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown<'a> {
    /// The value, as for every record that is none of a run's life.
    Value,
    /// Its metrics, under their own names in a group.
    Metrics {
        /// The group. Empty for those of epochs and of the run. Others have a group: they may have the names of those and mean something
        /// else, and those of batches are delivered behind those of the epoch, so one tag would go backward.
        group: &'static str,
        /// The metrics.
        metrics: Metrics<'a>,
        /// The step of a record that has none: the number of its epoch or batch.
        number: Option<i64>,
    },
    /// A text under the tag of the record.
    Text(Cow<'a, str>),
    /// It has nothing to show.
    Nothing,
}

/// Returns what is shown of a record.
pub fn shown_of(record: &Record) -> Shown<'_> {
    let Some(fields) = record.value().as_fields() else { return Shown::Value };
    let metrics = Metrics::Among(fields);
    let text = |name| fields.get(name).and_then(Value::as_str);
    let number = |name| fields.get(name).and_then(Value::as_i64).filter(|number| *number >= 0);
    match Event::name(record) {
        training::EpochCompleted::NAME => Shown::Metrics { group: "", metrics, number: number("epoch") },
        training::BatchCompleted::NAME => Shown::Metrics { group: "batch", metrics, number: number("batch") },
        training::Completed::NAME => Shown::Metrics { group: "", metrics, number: None },
        model::CheckpointSaved::NAME => match fields.get("metrics").and_then(Value::as_fields) {
            Some(all) => {
                Shown::Metrics { group: "checkpoint", metrics: Metrics::All(all), number: number("epoch") }
            }
            None => Shown::Nothing,
        },
        training::Failed::NAME => match (text("error"), text("traceback")) {
            (Some(error), Some(place)) => Shown::Text(format!("{error}\n\n```\n{place}\n```").into()),
            (error, place) => error.or(place).map_or(Shown::Nothing, |text| Shown::Text(text.into())),
        },
        training::EarlyStopped::NAME | training::Preempted::NAME => {
            text("reason").map_or(Shown::Nothing, |reason| Shown::Text(reason.into()))
        }
        training::Started::NAME
        | training::EpochStarted::NAME
        | training::NewBestModel::NAME
        | training::HEARTBEAT
        | model::CheckpointLoaded::NAME => Shown::Nothing,
        _ => Shown::Value,
    }
}

/// Metrics of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metrics<'a> {
    /// Those among the fields of an event: all that are not bookkeeping, those in `metrics` and `final_metrics` without that
    /// name. So a `loss` beside them is a metric too, as in an event that was made by hand.
    Among(&'a Fields),
    /// All of a map that has nothing else in it.
    All(&'a Fields),
}

impl<'a> Metrics<'a> {
    /// Returns the metrics with their names.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let (fields, is_event) = match self {
            Self::Among(fields) => (fields, true),
            Self::All(fields) => (fields, false),
        };
        let is_of_run = is_event && fields.get(RUN_ID).is_some();
        let is_metric = move |name| !is_event || !is_bookkeeping(name, is_of_run);
        fields.iter().map(|(name, value)| (&**name, value)).filter(move |(name, _)| is_metric(name)).flat_map(
            move |(name, value)| {
                let is_map = is_event && matches!(name, "metrics" | "final_metrics");
                let inner = value.as_fields().filter(|_| is_map);
                let itself = inner.is_none().then_some((name, value));
                inner.into_iter().flat_map(Fields::iter).map(|(name, value)| (&**name, value)).chain(itself)
            },
        )
    }
}

/// The id of a run, in the events that a `TrainingRun` reports.
const RUN_ID: &str = "run_id";

/// Returns whether a field of an event counts, times or identifies, and is no metric.
fn is_bookkeeping(name: &str, is_of_run: bool) -> bool {
    match name {
        "epoch" | "total_epochs" | "batch" | "duration" | "total_duration" | RUN_ID => true,
        // Of a run; else a metric, as of a genetic algorithm.
        "generation" => is_of_run,
        _ => false,
    }
}

/// Returns what the table of hyper-parameters shows of the begin of a run.
pub fn settings(started: Option<&Fields>) -> Fields {
    let of = |name| started.and_then(|fields| fields.get(name));
    let mut settings = of("config").and_then(Value::as_fields).cloned().unwrap_or_default();
    if let Some(model) = of("model_type").filter(|_| settings.get("model_type").is_none()) {
        settings.set("model_type", model.clone());
    }
    settings
}
