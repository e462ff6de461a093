//! What of an event is in its record.

use std::fmt;

use forebay::event::List;
use forebay::{Priority, Value};
use tracing::Level;

use crate::{field, records, records_by};

#[test]
fn each_type_of_field_keeps_its_value() {
    let records = records(|| {
        tracing::info!(
            float = 0.5,
            signed = -3_i64,
            unsigned = 3_u64,
            huge = u64::MAX,
            wide = i128::MAX,
            small = 5_u128,
            flag = true,
            text = "te\u{1b}xt",
            bytes = &b"\x00\xff"[..],
            debug = ?Some(1),
            display = %"shown",
            r#type = "raw",
            "message {}",
            1
        );
    });
    let [record] = &*records else { panic!("{records:?}") };
    let expected = [
        ("level", Value::from("INFO")),
        ("message", "message 1".into()),
        ("float", 0.5.into()),
        ("signed", (-3).into()),
        ("unsigned", 3.into()),
        ("huge", u64::MAX.to_string().into()),
        ("wide", i128::MAX.to_string().into()),
        ("small", 5.into()),
        ("flag", true.into()),
        ("text", "te\u{1b}xt".into()),
        ("bytes", "00ff".into()),
        ("debug", "Some(1)".into()),
        ("display", "shown".into()),
        ("type", "raw".into()),
    ];
    for (name, value) in &expected {
        assert_eq!(field(record, name), value, "{name}");
    }
    assert_eq!(record.value().as_fields().unwrap().len(), expected.len());
    assert_eq!((record.name(), record.priority(), record.step()), ("bridge.fields", Priority::Normal, None));
}

#[derive(Debug)]
struct Failed(&'static str, Option<Box<Failed>>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_ref().map(|source| &**source as _)
    }
}

#[test]
fn an_error_has_its_causes_beside_it() {
    let records = records(|| {
        let cause = Failed("no space", None);
        let error = Failed("not written", Some(Box::new(Failed("disk", Some(Box::new(cause))))));
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "it failed");
        let alone = Failed("alone", None);
        tracing::error!(error = &alone as &(dyn std::error::Error + 'static));
    });
    assert_eq!(field(&records[0], "error").as_str(), Some("not written"));
    assert_eq!(field(&records[0], "error.sources"), &Value::from(List::from(vec!["disk", "no space"])));
    assert_eq!(field(&records[1], "error.sources"), &Value::Empty);
    assert_eq!(records[1].priority(), Priority::Critical);
}

#[test]
fn an_integer_step_is_the_step_of_the_record_and_no_field() {
    let records = records(|| {
        tracing::info!(step = 7_u64, "unsigned");
        tracing::info!(step = -1, "signed");
        tracing::info!(step = 8_u128, "wide");
        tracing::info!(step = 0.5, "a scalar is none");
        tracing::info!(step = u64::MAX, "too large for one");
    });
    let steps: Vec<_> = records.iter().map(|record| record.signed_step()).collect();
    assert_eq!(steps, [Some(7), Some(-1), Some(8), None, None]);
    assert_eq!(field(&records[0], "step"), &Value::Empty);
    assert_eq!(field(&records[3], "step"), &Value::from(0.5));
    assert_eq!(field(&records[4], "step").as_str(), Some(&*u64::MAX.to_string()));
}

#[test]
fn target_and_name_make_the_name_of_the_record() {
    let records = records(|| {
        tracing::info!(target: "train::loop", "by target");
        tracing::info!(name: "epoch_done", target: "train", "by target and name");
        tracing::info!(name: "epoch.done", "by module and name");
    });
    let names: Vec<_> = records.iter().map(|record| record.name()).collect();
    assert_eq!(names, ["train.loop", "train.epoch_done", "bridge.fields.epoch.done"]);
}

#[test]
fn a_level_chooses_the_priority_unless_it_is_set() {
    let log = || {
        tracing::error!("error");
        tracing::warn!("warn");
        tracing::info!("info");
        tracing::debug!("debug");
        tracing::trace!("trace");
    };
    use Priority::{Critical, Low, Normal};
    let by_message = |(records, _): (Vec<forebay::Record>, forebay_tracing::Report)| {
        ["error", "warn", "info", "debug", "trace"].map(|message| {
            let record =
                records.iter().find(|record| field(record, "message").as_str() == Some(message)).unwrap();
            assert_eq!(field(record, "level").as_str().unwrap(), message.to_uppercase());
            record.priority()
        })
    };
    assert_eq!(by_message(records_by(|layer| layer, log)), [Critical, Normal, Normal, Low, Low]);
    let set = |layer: forebay_tracing::CollectorLayer| {
        layer.priority(Level::ERROR, Normal).priority(Level::DEBUG, Normal)
    };
    assert_eq!(by_message(records_by(set, log)), [Normal, Normal, Normal, Normal, Low]);
    let (without, _) =
        records_by(|layer| layer.without_level(), || tracing::info!(level = "its own", "done"));
    assert_eq!(field(&without[0], "level").as_str(), Some("its own"));
}

#[test]
fn events_of_the_crate_log_keep_their_target() {
    let records = records(|| {
        let line = log::Record::builder()
            .args(format_args!("from log"))
            .level(log::Level::Warn)
            .target("other::part")
            .module_path(Some("other"))
            .file(Some("other.rs"))
            .line(Some(7))
            .build();
        tracing_log::format_trace(&line).unwrap();
    });
    let [record] = &*records else { panic!("{records:?}") };
    assert_eq!((record.name(), field(record, "message").as_str()), ("other.part", Some("from log")));
    let names: Vec<_> =
        record.value().as_fields().unwrap().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["level", "message"]);
}
