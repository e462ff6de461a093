//! Records read back from JSON as they were, to the last bit, whatever they carry.

use forebay::event::{Encoded, ImageFormat, catalog};
use forebay::{Fields, Histogram, Image, Name, Priority, Record, Value};
use proptest::prelude::*;

/// Generates any number, the strange ones more often.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        any::<u64>().prop_map(f64::from_bits),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(f64::MIN_POSITIVE / 3.0),
        (-1000..1000).prop_map(f64::from),
    ]
}

/// Generates any text, the strange ones more often.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just("NaN".to_owned()),
        Just("$scalar".to_owned()),
        Just("$fields".to_owned()),
        Just("\"\\\n\u{0}\u{2028}\u{1F600}".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        number().prop_map(Value::Scalar),
        any::<i64>().prop_map(Value::Integer),
        any::<bool>().prop_map(Value::Bool),
        text().prop_map(Value::from),
        (proptest::collection::vec(number(), 0..20), 0..5usize)
            .prop_map(|(values, bins)| Histogram::from_values(&values, bins).into()),
        (any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(width, height, bytes)| Image { width, height, format: ImageFormat::Png, bytes }.into()
        ),
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(is_event, bytes)| {
            let bytes = bytes.into_boxed_slice();
            if is_event { Encoded::Event(bytes) } else { Encoded::Summary(bytes) }.into()
        }),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((text(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().collect::<Fields>().into()),
        ]
    })
}

fn record() -> impl Strategy<Value = Record> {
    let priority = prop_oneof![Just(Priority::Critical), Just(Priority::Normal), Just(Priority::Low)];
    let rare = proptest::option::of((text(), text(), text(), value()));
    let step = proptest::option::of(prop_oneof![any::<i64>(), -3..3_i64]);
    (text(), value(), step, 0..4_000_000_000_000_000_000u64, priority, rare).prop_map(
        |(name, value, step, nanos, priority, rare)| {
            let mut record = Record::with_value(name, value).with_unix_nanos(nanos).with_priority(priority);
            if let Some(step) = step {
                record = record.with_signed_step(step);
            }
            if let Some((a, b, c, value)) = rare {
                record = record
                    .with_source(a.clone())
                    .with_correlation_id(b.clone())
                    .with_session_id(c.clone())
                    .with_sub_run(a.clone())
                    .with_metadata(a, value)
                    .with_tag(b)
                    .with_tag(c);
            }
            record
        },
    )
}

proptest! {
    #[test]
    fn every_record_reads_back_as_it_was(record in record()) {
        let line = serde_json::to_string(&record).unwrap();
        prop_assert!(!line.contains('\n'), "one line");
        let back: Record = serde_json::from_str(&line).unwrap();
        // NaN is not equal to itself: `Debug` tells all other values apart to the last bit.
        prop_assert_eq!(format!("{record:?}"), format!("{back:?}"), "{}", line);
    }

    #[test]
    fn a_histogram_counts_every_value_once(values in proptest::collection::vec(number(), 0..100), bins in 1..20usize) {
        let histogram = Histogram::from_values(&values, bins);
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        prop_assert_eq!(histogram.count(), finite.len() as u64);
        prop_assert_eq!(histogram.non_finite(), (values.len() - finite.len()) as u64);
        prop_assert!(histogram.edges().is_sorted());
        for (bin, count) in histogram.counts().iter().enumerate() {
            let (low, high) = (histogram.edges()[bin], histogram.edges()[bin + 1]);
            let is_last = bin + 1 == histogram.counts().len();
            let inside = finite.iter().filter(|v| **v >= low && (**v < high || is_last)).count();
            prop_assert_eq!(*count, inside as u64);
        }
    }
}

proptest! {
    #[test]
    fn a_histogram_of_a_narrow_or_an_endless_range_is_in_order(
        low in any::<f64>().prop_filter("finite", |x| x.is_finite()),
        ulps in proptest::collection::vec(0..64u64, 1..20),
        bins in 1..80usize,
    ) {
        let near: Vec<f64> = ulps.iter().map(|n| f64::from_bits(low.to_bits().saturating_add(*n))).collect();
        for values in [near, vec![low, f64::MAX, -f64::MAX], vec![low, 0.0, f64::MIN_POSITIVE / 4.0]] {
            let histogram = Histogram::from_values(&values, bins);
            let finite = values.iter().filter(|value| value.is_finite()).count() as u64;
            prop_assert_eq!(histogram.count(), finite);
            prop_assert!(histogram.edges().is_sorted(), "{:?}", histogram.edges());
            prop_assert!(histogram.edges().iter().all(|edge| edge.is_finite()));
            let line = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Histogram>(&line).unwrap(), &histogram);
        }
    }
}

#[test]
fn a_histogram_that_was_counted_elsewhere_is_checked() {
    let counted = Histogram::from_counts(vec![0.0, 1.0, 2.0], vec![3, u64::MAX], 4.0, 5.0).unwrap();
    assert_eq!((counted.count(), counted.min(), counted.max()), (u64::MAX, 0.0, 2.0));
    for (edges, counts) in
        [(vec![0.0], vec![1]), (vec![1.0, 0.0], vec![1]), (vec![0.0, f64::NAN], vec![1]), (vec![0.0], vec![])]
    {
        assert!(Histogram::from_counts(edges, counts, 0.0, 0.0).is_err());
    }
    assert_eq!(Histogram::from_values(&[1.0, 2.0], usize::MAX).counts().len(), 65_536);
    assert_eq!(Histogram::from_values(&[1.0; 3], 0), Histogram::from_values(&[1.0; 3], 0));
}

#[test]
fn the_json_of_a_record_is_what_the_documentation_shows() {
    let record = Record::scalar("train.loss", 0.25).with_step(3).with_unix_nanos(1_763_712_000_123_456_789);
    assert_eq!(
        serde_json::to_string(&record).unwrap(),
        r#"{"name":"train.loss","time":"2025-11-21T08:00:00.123456789Z","step":3,"scalar":0.25}"#
    );
    let fields = Fields::new().with("loss", f64::NAN).with("epoch", 3).with("rate", 1.0);
    let record = Record::fields("epoch", fields).with_unix_nanos(0).with_priority(Priority::Critical);
    assert_eq!(
        serde_json::to_string(&record).unwrap(),
        concat!(
            r#"{"name":"epoch","time":"1970-01-01T00:00:00.000000000Z","priority":"critical","#,
            r#""fields":{"loss":{"$scalar":"NaN"},"epoch":3,"rate":1.0}}"#
        )
    );
}

#[test]
fn the_json_of_rare_parts_is_what_the_documentation_shows() {
    let encoded = Fields::new().with("values", Encoded::Summary(Box::new([1, 2, 255])));
    let record = Record::with_value("loss", Encoded::Event(Box::new([0])))
        .with_signed_step(-1)
        .with_sub_run("eval/test")
        .with_metadata("more", encoded)
        .with_unix_nanos(0);
    let line = serde_json::to_string(&record).unwrap();
    assert_eq!(
        line,
        concat!(
            r#"{"name":"loss","time":"1970-01-01T00:00:00.000000000Z","step":-1,"#,
            r#""encoded":{"message":"Event","bytes":"AA=="},"sub_run":"eval/test","#,
            r#""metadata":{"more":{"values":{"$encoded":{"message":"Summary","bytes":"AQL/"}}}}}"#
        )
    );
    assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    // An earlier version had steps beyond `i64::MAX`.
    let line = line.replace("\"step\":-1", "\"step\":18446744073709551614");
    assert_eq!(serde_json::from_str::<Record>(&line).unwrap().step(), Some(i64::MAX as u64));
}

#[test]
fn what_is_not_a_record_is_an_error_and_what_is_unknown_is_passed_over() {
    let time = r#""time":"2026-01-01T00:00:00Z""#;
    let good = format!(r#"{{"name":"x",{time},"scalar":1,"later":{{"a":[1]}}}}"#);
    assert_eq!(serde_json::from_str::<Record>(&good).unwrap().value(), &Value::Scalar(1.0));
    let bad = [
        r#"{"name":"x"}"#.to_owned(),
        format!(r#"{{{time}}}"#),
        format!(r#"{{"name":"x",{time},"scalar":"1.5"}}"#),
        format!(r#"{{"name":"x",{time},"scalar":1,"text":"two"}}"#),
        format!(
            r#"{{"name":"x",{time},"histogram":{{"edges":[0],"counts":[1],"sum":0,"sum_of_squares":0}}}}"#
        ),
        r#"{"name":"x","time":"yesterday"}"#.to_owned(),
        format!(r#"{{"name":"x",{time},"step":1.5}}"#),
        format!(r#"{{"name":"x",{time},"encoded":{{"message":"Graph","bytes":""}}}}"#),
        format!(r#"{{"name":"x",{time},"encoded":{{"message":"Event","bytes":"?"}}}}"#),
    ];
    for line in bad {
        assert!(serde_json::from_str::<Record>(&line).is_err(), "{line}");
    }
}

#[test]
fn the_catalogue_has_the_names_and_keys_of_the_documents() {
    use catalog::{data, metrics, model, plugin, system, training};
    let fields = Fields::new;
    let second = std::time::Duration::from_secs(1);
    let s = String::new;
    let events: [(Record, &str); 38] = [
        (
            metrics::FeatureUsed { feature: s(), action: s(), success: true }.into(),
            "usage.feature_used feature action success",
        ),
        (
            metrics::Measured { metric: s(), value: 1.0, unit: s() }.into(),
            "performance.measured metric value unit",
        ),
        (
            training::Started { run_id: s(), config: fields(), model_type: None }.into(),
            "training.started run_id config",
        ),
        (
            training::EpochStarted { epoch: 1, total_epochs: 2 }.into(),
            "training.epoch_started epoch total_epochs",
        ),
        (
            training::BatchCompleted { batch: 1, loss: 1.0, metrics: fields() }.into(),
            "training.batch_completed batch loss metrics",
        ),
        (
            training::EpochCompleted { epoch: 1, metrics: fields(), duration: second }.into(),
            "training.epoch_completed epoch metrics duration",
        ),
        (
            training::Completed { final_metrics: fields(), total_duration: second }.into(),
            "training.completed final_metrics total_duration",
        ),
        (
            training::Failed { error: s(), traceback: Some(s()), epoch: Some(1) }.into(),
            "training.failed error traceback epoch",
        ),
        (training::Preempted { reason: s(), epoch: Some(1) }.into(), "training.preempted reason epoch"),
        (training::NewBestModel { epoch: 1, loss: 1.0 }.into(), "training.new_best_model epoch loss"),
        (training::EarlyStopped { epoch: 1, reason: s() }.into(), "training.early_stopped epoch reason"),
        (
            model::ForwardPass { input_shape: vec![1], output_shape: vec![2] }.into(),
            "model.forward_pass input_shape output_shape",
        ),
        (model::BackwardPass { gradients: fields(), loss: 1.0 }.into(), "model.backward_pass gradients loss"),
        (
            model::CheckpointSaved { path: s(), epoch: 1, metrics: fields(), size_mb: Some(1.0) }.into(),
            "model.checkpoint_saved path epoch metrics size_mb",
        ),
        (
            model::CheckpointLoaded { path: s(), restored_epoch: 1 }.into(),
            "model.checkpoint_loaded path restored_epoch",
        ),
        (
            data::BatchLoaded { batch_size: 1, load_time: second, sequence_length: None, memory_usage: None }
                .into(),
            "data.batch_loaded batch_size load_time",
        ),
        (data::PreprocessingStarted { dataset_size: 1 }.into(), "data.preprocessing_started dataset_size"),
        (
            data::PreprocessingCompleted { processed_samples: 1, duration: second }.into(),
            "data.preprocessing_completed processed_samples duration",
        ),
        (data::CacheHit { cache_key: s(), size_mb: 1.0 }.into(), "data.cache_hit cache_key size_mb"),
        (data::CacheMiss { cache_key: s(), reason: s() }.into(), "data.cache_miss cache_key reason"),
        (data::ValidationStarted { validation_type: s() }.into(), "data.validation_started validation_type"),
        (
            data::ValidationCompleted { passed: true, issues: vec![] }.into(),
            "data.validation_completed passed issues",
        ),
        (data::SchemaMismatch { expected: s(), actual: s() }.into(), "data.schema_mismatch expected actual"),
        (
            data::PerformanceWarning { component: s(), metric: s(), value: 1.0, threshold: 1.0 }.into(),
            "data.performance_warning component metric value threshold",
        ),
        (plugin::Loaded { plugin_name: s(), version: s() }.into(), "plugin.loaded plugin_name version"),
        (
            plugin::Initialized { plugin_name: s(), config: fields() }.into(),
            "plugin.initialized plugin_name config",
        ),
        (
            plugin::Activated { plugin_name: s(), version: Some(s()), capabilities: Some(vec![s()]) }.into(),
            "plugin.activated plugin_name version capabilities",
        ),
        (plugin::Deactivated { plugin_name: s() }.into(), "plugin.deactivated plugin_name"),
        (plugin::Error { plugin_name: s(), error: s() }.into(), "plugin.error plugin_name error"),
        (plugin::Message { from: s(), to: s(), message: s() }.into(), "plugin.message from to message"),
        (
            plugin::StateChanged { plugin_name: s(), old_state: s(), new_state: s() }.into(),
            "plugin.state_changed plugin_name old_state new_state",
        ),
        (
            system::MemoryUsage { used_mb: 1.0, available_mb: 1.0, percentage: 1.0 }.into(),
            "system.memory_usage used_mb available_mb percentage",
        ),
        (
            system::GpuUsage { utilization: 1.0, memory_used: 1.0, temperature: 1.0 }.into(),
            "system.gpu_usage utilization memory_used temperature",
        ),
        (
            system::DiskUsage { used_gb: 1.0, available_gb: 1.0 }.into(),
            "system.disk_usage used_gb available_gb",
        ),
        (
            system::PerformanceWarning { component: s(), metric: s(), value: 1.0, threshold: 1.0 }.into(),
            "system.performance_warning component metric value threshold",
        ),
        (
            system::BottleneckDetected { component: s(), description: s(), suggestions: vec![s()] }.into(),
            "system.bottleneck_detected component description suggestions",
        ),
        (
            system::ErrorThresholdExceeded { error_count: 1, threshold: 1, component: s() }.into(),
            "system.error_threshold_exceeded error_count threshold component",
        ),
        (
            metrics::Aggregated {
                training_events_count: 1,
                system_events_count: 1,
                events_per_second: 1.0,
                timestamp: 1.0,
            }
            .into(),
            "metrics.aggregated training_events_count system_events_count events_per_second timestamp",
        ),
    ];
    for (record, expected) in events {
        let keys = record.value().as_fields().unwrap().iter().map(|(key, _)| key.as_str());
        let reported: Vec<&str> = [record.name()].into_iter().chain(keys).collect();
        assert_eq!(reported.join(" "), expected);
        let critical = ["started", "completed", "failed", "early_stopped", "preempted"];
        let is_critical =
            record.name().strip_prefix("training.").is_some_and(|name| critical.contains(&name));
        assert_eq!(record.priority() == Priority::Critical, is_critical);
    }
    assert_eq!(Record::scalar(training::Started::NAME, 1.0).name(), "training.started");
}

#[test]
fn names_compare_by_their_text_wherever_it_lives() {
    let (fixed, made) = (Name::from_static("train.loss"), Name::from("train.loss".to_owned()));
    assert_eq!(fixed, made);
    assert_eq!(made.clone(), "train.loss");
    let mut fields = Fields::new().with(fixed, 1);
    fields.set(made, 2);
    assert_eq!((fields.len(), fields.get("train.loss")), (1, Some(&Value::Integer(2))));
    assert_eq!(Value::from(u64::MAX), Value::Scalar(u64::MAX as f64));
}
