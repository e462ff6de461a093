//! The standard events of training, model, data, plugin and system code, one struct each.
//!
//! They convert into a [`Record`] whose fields have the names of the struct's, so that every reader
//! finds the same keys; a field that is `None` is left out. Durations are in seconds, sizes in the unit
//! of their name. `collect` takes them as they are:
//!
//! ```
//! use std::time::Duration;
//! use forebay::event::catalog::training::EpochCompleted;
//! use forebay::{Collector, Fields, sink::MemorySink};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = MemorySink::new();
//! let collector = Collector::builder().sink(memory.clone()).start()?;
//! collector.collect(EpochCompleted {
//!     epoch: 3,
//!     metrics: Fields::from([("train_loss", 0.12), ("val_loss", 0.15)]),
//!     duration: Duration::from_millis(1500),
//! });
//! collector.stop()?;
//! let record = &memory.events()[0];
//! assert_eq!(record.name(), "training.epoch_completed");
//! let fields = record.value().as_fields().ok_or("no fields")?;
//! assert_eq!(fields.get("duration").and_then(|value| value.as_f64()), Some(1.5));
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use super::{Fields, Priority, Record, Value};

/// Defines the events of one module: name, priority, and fields.
macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $event:ident = $name:literal, $priority:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[doc = concat!("\n\nIts name is `", $name, "`.")]
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct $event {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $event {
            /// The name of its records.
            pub const NAME: &'static str = $name;
        }

        impl From<$event> for Record {
            fn from(event: $event) -> Record {
                let mut fields = Fields::new();
                $(match Value::from(event.$field) {
                    Value::Empty => {}
                    value => fields.set(stringify!($field), value),
                })*
                Record::fields($event::NAME, fields).with_priority(Priority::$priority)
            }
        }
    )*};
}

/// The life of a training run. Its beginning and its ends are critical. [`TrainingRun`](crate::run::TrainingRun) tells
/// all of it.
///
/// In begins, heartbeats and ends, the field `run_id`, a text, names the run, and `generation`, an integer beside it, names the
/// generation. `TrainingRun` sets both. In an event that you make by hand, use `run_id` for nothing else. An end without it is
/// the end of the run that began last, whatever its `generation` is.
pub mod training {
    use super::*;

    /// The name of the events by which a run says that its process lives. They carry the step that was set last.
    pub const HEARTBEAT: &str = "training.heartbeat";

    events! {
        /// A run begins.
        Started = "training.started", Critical {
            /// Id of the run.
            run_id: String,
            /// Its settings.
            config: Fields,
            /// The kind of the model.
            model_type: Option<String>,
        }
        /// An epoch begins.
        EpochStarted = "training.epoch_started", Normal {
            /// Number of the epoch.
            epoch: u64,
            /// Total number of epochs.
            total_epochs: u64,
        }
        /// A batch is done.
        BatchCompleted = "training.batch_completed", Low {
            /// Number of the batch.
            batch: u64,
            /// Its loss.
            loss: f64,
            /// Further measurements.
            metrics: Fields,
        }
        /// An epoch is done.
        EpochCompleted = "training.epoch_completed", Normal {
            /// Number of the epoch.
            epoch: u64,
            /// The measurements.
            metrics: Fields,
            /// The duration.
            duration: Duration,
        }
        /// A run ends well.
        Completed = "training.completed", Critical {
            /// The final measurements.
            final_metrics: Fields,
            /// The duration.
            total_duration: Duration,
        }
        /// A run ends badly.
        Failed = "training.failed", Critical {
            /// The error.
            error: String,
            /// The place.
            traceback: Option<String>,
            /// Epoch in which it happened.
            epoch: Option<u64>,
        }
        /// A run is interrupted, and may be resumed.
        Preempted = "training.preempted", Critical {
            /// Reason of the interruption.
            reason: String,
            /// Epoch in which it happened.
            epoch: Option<u64>,
        }
        /// No model was better before.
        NewBestModel = "training.new_best_model", Normal {
            /// Epoch in which it happened.
            epoch: u64,
            /// Its loss.
            loss: f64,
        }
        /// A run ends early, on purpose.
        EarlyStopped = "training.early_stopped", Critical {
            /// Epoch in which it happened.
            epoch: u64,
            /// The reason.
            reason: String,
        }
    }
}

/// Events of a model.
pub mod model {
    use super::*;

    events! {
        /// An input went through.
        ForwardPass = "model.forward_pass", Low {
            /// Its dimensions.
            input_shape: Vec<u64>,
            /// Those of the result.
            output_shape: Vec<u64>,
        }
        /// Gradients came back.
        BackwardPass = "model.backward_pass", Low {
            /// Norms by parameter, not the tensors.
            gradients: Fields,
            /// The loss.
            loss: f64,
        }
        /// A checkpoint is on disk.
        CheckpointSaved = "model.checkpoint_saved", Normal {
            /// The place.
            path: String,
            /// Epoch of the checkpoint.
            epoch: u64,
            /// The measurements.
            metrics: Fields,
            /// Its size in MiB.
            size_mb: Option<f64>,
        }
        /// A checkpoint is loaded.
        CheckpointLoaded = "model.checkpoint_loaded", Normal {
            /// Path of the checkpoint.
            path: String,
            /// Epoch of the checkpoint.
            restored_epoch: u64,
        }
    }
}

/// Events of data on its way.
pub mod data {
    use super::*;

    events! {
        /// A batch is loaded.
        BatchLoaded = "data.batch_loaded", Low {
            /// The number of samples.
            batch_size: u64,
            /// The duration.
            load_time: Duration,
            /// The length of its sequences.
            sequence_length: Option<u64>,
            /// The memory that it takes, in MiB.
            memory_usage: Option<f64>,
        }
        /// Preprocessing begins.
        PreprocessingStarted = "data.preprocessing_started", Normal {
            /// Number of samples.
            dataset_size: u64,
        }
        /// Preprocessing is done.
        PreprocessingCompleted = "data.preprocessing_completed", Normal {
            /// The number of samples.
            processed_samples: u64,
            /// The duration.
            duration: Duration,
        }
        /// Something was in the cache.
        CacheHit = "data.cache_hit", Low {
            /// The key.
            cache_key: String,
            /// Its size in MiB.
            size_mb: f64,
        }
        /// Something was not in the cache.
        CacheMiss = "data.cache_miss", Low {
            /// The key.
            cache_key: String,
            /// The reason.
            reason: String,
        }
        /// Validation begins.
        ValidationStarted = "data.validation_started", Normal {
            /// Kind of the validation.
            validation_type: String,
        }
        /// Validation is done.
        ValidationCompleted = "data.validation_completed", Normal {
            /// True if all is well.
            passed: bool,
            /// The issues.
            issues: Vec<String>,
        }
        /// Data does not look as it should.
        SchemaMismatch = "data.schema_mismatch", Normal {
            /// The expected form.
            expected: String,
            /// The actual form.
            actual: String,
        }
        /// A measurement of loading crossed its threshold.
        PerformanceWarning = "data.performance_warning", Normal {
            /// The place.
            component: String,
            /// The name of the measurement.
            metric: String,
            /// The measurement.
            value: f64,
            /// The threshold.
            threshold: f64,
        }
    }
}

/// The life of a plugin.
pub mod plugin {
    use super::*;

    events! {
        /// The code of the plugin is loaded.
        Loaded = "plugin.loaded", Normal {
            /// Name of the plugin.
            plugin_name: String,
            /// Version of the plugin.
            version: String,
        }
        /// A plugin has its settings.
        Initialized = "plugin.initialized", Normal {
            /// Name of the plugin.
            plugin_name: String,
            /// Its settings.
            config: Fields,
        }
        /// A plugin is in service.
        Activated = "plugin.activated", Normal {
            /// Name of the plugin.
            plugin_name: String,
            /// Version of the plugin.
            version: Option<String>,
            /// Its capabilities.
            capabilities: Option<Vec<String>>,
        }
        /// A plugin is out of service.
        Deactivated = "plugin.deactivated", Normal {
            /// Name of the plugin.
            plugin_name: String,
        }
        /// A plugin failed.
        Error = "plugin.error", Normal {
            /// Name of the plugin.
            plugin_name: String,
            /// The error.
            error: String,
        }
        /// A plugin sends a message to another.
        Message = "plugin.message", Normal {
            /// The sender.
            from: String,
            /// The receiver.
            to: String,
            /// The message.
            message: String,
        }
        /// A plugin goes from one state into another.
        StateChanged = "plugin.state_changed", Normal {
            /// Name of the plugin.
            plugin_name: String,
            /// The state it was in.
            old_state: String,
            /// The state it is in.
            new_state: String,
        }
    }
}

/// The machine, and the program as a whole.
pub mod system {
    use super::*;

    events! {
        /// Memory.
        MemoryUsage = "system.memory_usage", Low {
            /// Memory in use, in MiB.
            used_mb: f64,
            /// Left, in MiB.
            available_mb: f64,
            /// Memory in use, in percent.
            percentage: f64,
        }
        /// A graphics processor.
        GpuUsage = "system.gpu_usage", Low {
            /// Its utilization, in percent.
            utilization: f64,
            /// Its memory in use, in MiB.
            memory_used: f64,
            /// Temperature in degrees Celsius.
            temperature: f64,
        }
        /// Disk space.
        DiskUsage = "system.disk_usage", Low {
            /// Space in use, in GiB.
            used_gb: f64,
            /// Left, in GiB.
            available_gb: f64,
        }
        /// A measurement crossed its threshold.
        PerformanceWarning = "system.performance_warning", Normal {
            /// The place.
            component: String,
            /// The name of the measurement.
            metric: String,
            /// The measurement.
            value: f64,
            /// The threshold.
            threshold: f64,
        }
        /// Something holds everything up.
        BottleneckDetected = "system.bottleneck_detected", Normal {
            /// The component.
            component: String,
            /// The description.
            description: String,
            /// Suggestions.
            suggestions: Vec<String>,
        }
        /// More errors than there should be.
        ErrorThresholdExceeded = "system.error_threshold_exceeded", Normal {
            /// The number of errors.
            error_count: u64,
            /// The threshold: the most errors that are normal.
            threshold: u64,
            /// The place.
            component: String,
        }
    }
}

/// Summaries of other events, and what people count and measure.
pub mod metrics {
    use super::*;

    events! {
        /// Aggregated counts of recent events.
        Aggregated = "metrics.aggregated", Normal {
            /// Events of training.
            training_events_count: u64,
            /// Events of the system.
            system_events_count: u64,
            /// All of them a second.
            events_per_second: f64,
            /// End of the window, in seconds since 1970-01-01 UTC.
            timestamp: f64,
        }
        /// Somebody used something.
        FeatureUsed = "usage.feature_used", Normal {
            /// The feature.
            feature: String,
            /// The action.
            action: String,
            /// True if that worked.
            success: bool,
        }
        /// Something was measured.
        Measured = "performance.measured", Normal {
            /// The name of the measurement.
            metric: String,
            /// The measurement.
            value: f64,
            /// Unit of the value.
            unit: String,
        }
    }
}
