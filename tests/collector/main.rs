//! The collector in its own process: its promises, and what stands around them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod byte_budget;
#[cfg(feature = "channel")]
mod channel;
mod config;
#[cfg(feature = "config")]
mod config_env;
#[cfg(feature = "config")]
mod config_layers;
#[cfg(feature = "json-lines")]
mod deep_values;
#[cfg(feature = "json-lines")]
mod enrichment;
mod escaped_output;
#[cfg(feature = "json-lines")]
mod extreme_numbers;
mod flush_strategies;
#[cfg(feature = "futures")]
mod futures;
mod gate;
mod health;
mod lanes;
#[cfg(all(feature = "metrics", feature = "prometheus"))]
mod metrics;
mod naps;
mod p10_idle_costs_nothing;
mod p2_memory_is_bounded;
mod p3_every_event_has_one_fate;
mod p4_flush_covers;
mod p5_stop;
mod p6_sinks_harm_no_other;
mod p7_critical_events;
mod pattern;
mod queue_version;
#[cfg(feature = "json-lines")]
mod readme;
mod reconfigure;
#[cfg(feature = "json-lines")]
mod records;
mod reports;
mod requirements;
mod root_names;
mod shards;
#[cfg(feature = "json-lines")]
mod stats;
mod subscription;
#[path = "../support/mod.rs"]
mod support;
mod timed;
mod under_load;
#[cfg(feature = "json-lines")]
mod user_code_panics;
#[cfg(feature = "json-lines")]
mod wrappers;
