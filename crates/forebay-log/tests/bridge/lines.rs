//! What of a line is in its record, and what a value does that panics, logs or is too long.

use std::fmt;

use forebay::event::List;
use forebay::{Priority, Value};
use log::Level;

use crate::support::hush;
use crate::{field, messages, records_by};

#[test]
fn each_type_of_key_value_keeps_its_value() {
    let (records, _) = records_by(
        |logger| logger,
        |logger| {
            log::info!(
                logger: logger,
                float = 0.5, signed = -3_i64, unsigned = 3_u64, huge = u64::MAX, wide = i128::MAX, small = 5_u128,
                flag = true, text = "te\u{1b}xt", letter = 'x', debug:? = Some(1), display:% = 1.5, none = None::<u8>;
                "message {}", 1
            );
        },
    );
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
        ("letter", "x".into()),
        ("debug", "Some(1)".into()),
        ("display", "1.5".into()),
        ("none", Value::Empty),
    ];
    for (name, value) in &expected {
        assert_eq!(field(record, name), value, "{name}");
    }
    assert_eq!(record.value().as_fields().unwrap().len(), expected.len());
    assert_eq!((record.name(), record.priority(), record.step()), ("bridge.lines", Priority::Normal, None));
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
    let error = Failed("not written", Some(Box::new(Failed("no space", None))));
    let (records, _) =
        records_by(|logger| logger, |logger| log::error!(logger: logger, err:err = error; "it failed"));
    assert_eq!(field(&records[0], "err").as_str(), Some("not written"));
    assert_eq!(field(&records[0], "err.sources"), &Value::from(List::from(vec!["no space"])));
    assert_eq!(records[0].priority(), Priority::Critical);
}

#[test]
fn target_step_and_level_have_places_of_their_own() {
    let (records, _) = records_by(
        |logger| logger.priority(Level::Warn, Priority::Low),
        |logger| {
            log::info!(logger: logger, target: "train::loop", step = 7; "first");
            log::info!(logger: logger, target: "train::loop", step = -1_i64; "second");
            log::info!(logger: logger, target: "plain", step = 0.5; "a scalar is none");
            log::warn!(logger: logger, "low");
        },
    );
    let of = |message: &str| {
        let record =
            records.iter().find(|record| field(record, "message").as_str() == Some(message)).unwrap();
        (record.name().to_owned(), record.signed_step(), record.priority())
    };
    assert_eq!(of("first"), ("train.loop".to_owned(), Some(7), Priority::Normal));
    assert_eq!(of("second"), ("train.loop".to_owned(), Some(-1), Priority::Normal));
    assert_eq!(of("a scalar is none"), ("plain".to_owned(), None, Priority::Normal));
    assert_eq!(of("low"), ("bridge.lines".to_owned(), None, Priority::Low));
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::panic_any("on purpose")
    }
}

/// Logs when it is formatted, and formats such a value for that, so many times.
struct Within<'a>(u32, &'a forebay_log::Logger);

impl fmt::Debug for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0 {
            log::info!(logger: self.1, "inner {:?}", Within(self.0 - 1, self.1));
        }
        f.write_str("logs")
    }
}

#[test]
fn values_that_panic_log_or_have_no_end_are_bounded_and_counted() {
    hush();
    let (records, report) = records_by(
        |logger| logger.max_text_bytes(30),
        |logger| {
            log::info!(logger: logger, value:? = Panics; "{:?}", Panics);
            log::info!(logger: logger, "{}", "x".repeat(31));
            log::info!(logger: logger, "outer {:?}", Within(10, logger));
        },
    );
    let panicked = (field(&records[0], "message").as_str(), field(&records[0], "value").as_str());
    assert_eq!(panicked, (Some("(panicked: on purpose)"), Some("(panicked: on purpose)")));
    assert_eq!(
        messages(&records)[1..],
        [
            "x".repeat(30) + "…",
            "inner logs".into(),
            "inner logs".into(),
            "inner logs".into(),
            "outer logs".into()
        ]
    );
    assert_eq!((report.counts.panicked, report.counts.cut, report.counts.too_deep), (2, 1, 1));
}

/// Key-values of a user that end so.
struct Source(fn() -> Result<(), log::kv::Error>);

impl log::kv::Source for Source {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn log::kv::VisitSource<'kvs>) -> Result<(), log::kv::Error> {
        visitor.visit_pair("first".into(), 1.into())?;
        (self.0)()?;
        visitor.visit_pair("second".into(), 2.into())
    }
}

#[test]
fn key_values_that_fail_or_panic_leave_what_they_gave_before_and_say_why_they_ended() {
    hush();
    let (records, report) = records_by(
        |logger| logger,
        |logger| {
            for end in [
                || Err(log::kv::Error::msg("no more")),
                (|| std::panic::panic_any("on purpose")) as fn() -> Result<(), log::kv::Error>,
            ] {
                let pairs = Source(end);
                let mut line = log::Record::builder();
                line.level(Level::Info).key_values(&pairs);
                log::Log::log(logger, &line.args(format_args!("line")).build());
            }
        },
    );
    let ends: Vec<_> = records.iter().map(|record| field(record, "key_values").as_str()).collect();
    assert_eq!(ends, [Some("no more (failed)"), Some("(panicked: on purpose)")]);
    assert!(records.iter().all(|record| field(record, "first").as_i64() == Some(1)));
    assert!(records.iter().all(|record| field(record, "second") == &Value::Empty));
    assert_eq!((report.counts.failed, report.counts.panicked, report.lost()), (1, 1, 0));
}

#[test]
fn any_number_of_targets_and_keys_keep_their_names() {
    const NAMES: usize = 20_000;
    let (records, _) = records_by(
        |logger| logger,
        |logger| {
            for name in 0..NAMES {
                let (target, key) = (format!("many::{name}"), format!("key {name}"));
                let pairs = [(&*key, name)];
                let line = log::Record::builder()
                    .args(format_args!("line"))
                    .level(Level::Info)
                    .target(&target)
                    .key_values(&pairs)
                    .build();
                log::Log::log(logger, &line);
            }
        },
    );
    for (name, record) in records.iter().enumerate() {
        assert_eq!(record.name(), format!("many.{name}"));
        assert_eq!(field(record, &format!("key {name}")).as_i64(), Some(name as i64));
    }
    assert_eq!(records.len(), NAMES);
}
