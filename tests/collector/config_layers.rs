//! Settings from TOML, and which layer wins.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay::collector::BuildError;
use forebay::config::{
    ConfigError, ConfigPlace, GateConfig, HealthConfig, Lanes, NameRule, Preset, Sampling, Threshold,
};
use forebay::{Collector, Config, FlushStrategy, Overflow, Pattern, Priority};
use proptest::prelude::*;
use serde_json::{Value, json};

fn refused(text: &str) -> String {
    Config::from_toml(text).unwrap_err().to_string()
}

/// A setting of every key: in a file, what it is read as, in a variable, what that is read as, and a wrong value.
struct Row {
    key: &'static str,
    file: &'static str,
    is: Value,
    variable: &'static str,
    is_then: Value,
    wrong: &'static str,
    /// Further lines of the file.
    with: &'static str,
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let row = |key, file, is, variable, is_then, wrong| Row { key, file, is, variable, is_then, wrong, with: "" };
    vec![
        row("capacity", "20_000", json!(20_000), "30", json!(30), "'many'"),
        row("critical_capacity", "2", json!(2), "3", json!(3), "-1"),
        row("low_capacity", "2", json!(2), "3", json!(3), "1.5"),
        row("shards", "2", json!(2), "4", json!(4), "[]"),
        Row {
            with: "max_lanes = 4\n",
            ..row("lanes", "'per_thread'", json!("per_thread"), "shared", json!("shared"), "'own'")
        },
        Row { with: "lanes = 'per_thread'\n", ..row("max_lanes", "4", json!(4), "5", json!(5), "'many'") },
        row("max_bytes", "2", json!(2), "none", Value::Null, "'5 MiB'"),
        row("batch_size", "2", json!(2), "none", Value::Null, "true"),
        row("overflow", "'drop_newest'", json!("drop_newest"), "drop_oldest", json!("drop_oldest"), "'DropOldest'"),
        Row {
            with: "overflow = 'block'\n",
            ..row("overflow_timeout", "0.25", json!("250ms"), "5ms", json!("5ms"), "'soon'")
        },
        row("flush.strategy", "'size'", json!("size"), "time", json!("time"), "1"),
        row("flush.events", "2", json!(2), "3", json!(3), "'a'"),
        row("flush.interval", "'2s'", json!("2s"), "3s", json!("3s"), "{}"),
        row("max_nap", "'2s'", json!("2s"), "3s", json!("3s"), "[]"),
        row("critical_timeout", "'2s'", json!("2s"), "3s", json!("3s"), "1979-05-27"),
        row("flush_timeout", "2", json!("2s"), "3", json!("3s"), "-0.5"),
        row("stop_timeout", "2", json!("2s"), "3", json!("3s"), "nan"),
        row("drop_timeout", "2", json!("2s"), "3", json!("3s"), "inf"),
        row("session_id", "'a'", json!("a"), "7", json!("7"), "7"),
        row("source", "'a'", json!("a"), "b", json!("b"), "7"),
        row("host", "'a'", json!("a"), "b", json!("b"), "7"),
        row("rank", "2", json!(2), "3", json!(3), "-1"),
        row("thread_name", "'a'", json!("a"), "b", json!("b"), "7"),
        row("thread_stack_size", "65536", json!(65_536), "131072", json!(131_072), "'1MB'"),
        row("gate.enabled", "false", json!(false), "true", json!(true), "0"),
        row("gate.allow", "['a', 'b']", json!(["a", "b"]), "c,d", json!(["c", "d"]), "[1]"),
        row("gate.deny", "'a,b'", json!(["a", "b"]), ",", json!([]), "{ a = 1 }"),
        row("gate.rules", "[{ pattern = 'a' }]", json!([{ "pattern": "a" }]), "", Value::Null, "['a']"),
        row("gate.min_priority", "'normal'", json!("normal"), "critical", json!("critical"), "'high'"),
        row("gate.sampling", "{ every = 2 }", json!({ "every": 2 }), "every=3", json!({ "every": 3 }), "{ first = 1 }"),
        row("gate.rate_limit", "2", json!(2), "none", Value::Null, "4294967296"),
        row("gate.max_event_bytes", "2", json!(2), "3", json!(3), "'5 KiB'"),
        row("gate.seed", "2", json!(2), "18446744073709551615", json!("18446744073709551615"), "-2"),
        row("health.queue_depth.raise", "0.75", json!(0.75), "0.7", json!(0.7), "'half'"),
        row("health.queue_depth.clear", "0.5", json!(0.5), "0.25", json!(0.25), "true"),
        row("health.memory.raise", "0.75", json!(0.75), "1", json!(1.0), "'half'"),
        row("health.memory.clear", "0.5", json!(0.5), "0", json!(0.0), "[]"),
        row("health.failing.raise", "0.75", json!(0.75), "0.5", json!(0.5), "'half'"),
        row("health.failing.clear", "0.25", json!(0.25), "0.125", json!(0.125), "{}"),
        row("health.max_busy_time", "1", json!("1s"), "5ms", json!("5ms"), "'soon'"),
        row("health.max_latency", "'100ms'", json!("100ms"), "none", Value::Null, "true"),
        row("health.min_rate", "500", json!(500.0), "none", Value::Null, "true"),
        row("health.max_dead_letters", "2", json!(2), "3", json!(3), "1.5"),
    ]
}

/// Returns the value of a key in what serde writes.
fn at(config: &Config, key: &str) -> Value {
    serde_json::to_value(config).unwrap().pointer(&format!("/{}", key.replace('.', "/"))).unwrap().clone()
}

fn variable(key: &str) -> String {
    format!("FOREBAY_{}", key.to_uppercase().replace('.', "__"))
}

#[test]
fn every_layer_goes_over_the_one_below_it_key_by_key() {
    for Row { key, file, is, variable: text, is_then, with, .. } in rows() {
        let file = format!("{with}{key} = {file}");
        let loaded = Config::loader().toml(&file).load().unwrap();
        assert_ne!(at(&Config::default(), key), is, "{key} shows nothing: it is the default");
        assert_eq!(at(&loaded, key), is, "{key} of the file");
        if key == "gate.rules" {
            continue;
        }
        assert_ne!(is, is_then, "{key} shows nothing: it is that of the file");
        let vars = || [(variable(key), text)];
        let after = Config::loader().toml(&file).vars(vars()).load().unwrap();
        let before = Config::loader().vars(vars()).toml(&file).load().unwrap();
        assert_eq!(at(&after, key), is_then, "{key} of the environment");
        assert_eq!(after, before, "{key} does not depend on the order of calls");
    }
}

#[test]
fn the_rows_above_are_all_settings() {
    let known: BTreeSet<String> = rows().iter().map(|row| row.key.to_owned()).collect();
    let mut all = BTreeSet::new();
    let mut tables = vec![(String::new(), serde_json::to_value(Config::default()).unwrap())];
    while let Some((name, value)) = tables.pop() {
        match value {
            Value::Object(inner) => {
                let below = inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value));
                tables.extend(below);
            }
            _ => drop(all.insert(name[1..].to_owned())),
        }
    }
    assert_eq!(known, all);
}

#[test]
fn a_wrong_value_of_every_key_is_an_error_that_names_it() {
    for Row { key, wrong, with, .. } in rows() {
        let error = Config::from_toml(&format!("{with}{key} = {wrong}")).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("invalid {key}")), "{text}");
        assert!(text.contains(" (expected "), "{text}");
        let line = if with.is_empty() { 1 } else { 2 };
        assert!(text.contains(&format!(" in line {line}, column ")), "{text}");
        let is_it = matches!(&error, ConfigError::InvalidAt { key: it, field, .. } if it.starts_with(key) && *field == key);
        assert!(is_it, "{error:?}");
    }
}

#[test]
fn a_word_is_neither_a_number_nor_a_table_nor_a_list() {
    let texts =
        ["overflow = 1", "overflow = 0", "overflow = '1'", "flush.strategy = 0", "flush.strategy = '0'"];
    let tables =
        ["gate.min_priority = 'low=none'", "gate.min_priority = { low = 'none' }", "overflow = ['block']"];
    for text in texts.into_iter().chain(tables).chain(["overflow = { drop_oldest = 'none' }"]) {
        let key = text.split(' ').next().unwrap();
        assert!(refused(text).starts_with(&format!("invalid {key}")), "{text}");
    }
    for (name, value) in [("FOREBAY_OVERFLOW", "1"), ("FOREBAY_GATE__MIN_PRIORITY", "low=none")] {
        let error = Config::loader().vars([(name, value)]).load().unwrap_err().to_string();
        assert!(error.starts_with(&format!("invalid {name}")), "{error}");
    }
    for json in [json!({ "overflow": 0 }), json!({ "overflow": 2, "overflow_timeout": "1s" })] {
        assert!(serde_json::from_value::<Config>(json.clone()).is_err(), "{json}");
    }
}

#[test]
fn a_text_of_any_length_and_form_is_read_in_one_pass() {
    for text in ["=".repeat(1_000_000), "a=".repeat(500_000), ",".repeat(1_000_000), "[{".repeat(500_000)] {
        assert_eq!(Config::from_toml(&format!("source = '{text}'")).unwrap().source, Some(text.clone()));
        assert!(Config::from_toml(&format!("gate.sampling = '{text}'")).is_err());
        assert!(Config::from_toml(&format!("capacity = '{text}'")).is_err());
    }
}

#[test]
fn an_empty_list_is_one_of_texts() {
    assert_eq!(Config::from_toml("gate.deny = ','").unwrap().gate, GateConfig::default());
    for wrong in ["gate.rules = ','", "gate.rules = ''", "gate.rules = ' '"] {
        assert!(refused(wrong).starts_with("invalid gate.rules"), "{wrong}");
    }
    let variables = [("FOREBAY_GATE__RULES", ",")];
    assert!(Config::loader().toml("gate.rules = [{ pattern = 'a' }]").vars(variables).load().is_err());
}

#[test]
fn a_rule_has_the_pattern_that_it_says_whatever_that_looks_like() {
    for pattern in ["5", "true", "none", "user=*", "a=b,c=d"] {
        for sampling in ["'every=2'", "{ every = '2' }", "{ every = 2 }"] {
            let text = format!("gate.rules = [{{ pattern = '{pattern}', sampling = {sampling} }}]");
            let rules = Config::from_toml(&text).unwrap_or_else(|error| panic!("{text}: {error}")).gate.rules;
            assert_eq!(rules[0].pattern.to_string(), pattern, "{text}");
            assert_eq!(rules[0].sampling, Some(Sampling::Every { nth: 2 }), "{text}");
        }
    }
    let error = refused("gate.rules = [{ sampling = { every = 2 } }]");
    assert!(error.contains("(expected a table with `pattern`)"), "{error}");
}

#[test]
fn an_error_for_a_number_that_is_too_large_names_the_largest() {
    let said =
        "invalid gate.rate_limit: 4294967296 (expected a whole number up to 4294967295) in line 1, column 6";
    assert_eq!(refused("gate.rate_limit = 4294967296"), said);
}

#[test]
fn a_name_in_quotes_is_found_where_it_stands() {
    let said = "invalid memoryLimits.maxQueueSize: 0 (expected 1..=1073741824) in line 2, column 1";
    assert_eq!(refused("shards = 1\n'memoryLimits.maxQueueSize' = 0"), said);
    assert!(refused("shards = 1\n'flush.interval' = true").ends_with(" in line 2, column 1"));
}

#[test]
fn the_program_goes_over_all_layers() {
    let config =
        Config::loader().toml("capacity = 2\nshards = 2").vars([("FOREBAY_CAPACITY", "4")]).load().unwrap();
    let collector = Collector::builder().config(config).capacity(8).build().unwrap();
    assert_eq!((collector.config().capacity, collector.config().shards), (8, 2));
}

#[test]
fn the_highest_layer_that_names_a_preset_chooses_it_below_all_files() {
    let loader = || Config::loader().preset(Preset::Training).toml("preset = 'analytics'\ncapacity = 7");
    let of = |preset: Preset| preset.config().with_capacity(7);
    assert_eq!(loader().load(), Ok(of(Preset::Analytics)));
    assert_eq!(loader().vars([("FOREBAY_PRESET", "production")]).load(), Ok(of(Preset::Production)));
    assert_eq!(loader().toml("preset = 'development'").load(), Ok(of(Preset::Development)));
    let error = refused("preset = 'prod'");
    assert!(error.starts_with("invalid preset: \"prod\" (expected training, "), "{error}");
}

#[test]
fn a_later_text_goes_over_an_earlier_one() {
    let config = Config::loader().toml("capacity = 2\nlow_capacity = 2").toml("capacity = 3").load().unwrap();
    assert_eq!((config.capacity, config.low_capacity), (3, 2));
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_with_its_table() {
    let cases = [
        ("capasity = 1", "capasity", (1, 1)),
        ("flush.intervall = 1", "flush.intervall", (1, 7)),
        ("[gate]\ndeny_all = true", "gate.deny_all", (2, 1)),
        ("[queue]\ncapacity = 1", "queue", (1, 2)),
        ("[queue]", "queue", (1, 2)),
        ("flush = 'time'", "flush", (1, 1)),
        ("flush.interval.max = 1", "", (1, 7)),
        ("[gate.sampling]\nrat = 0.1", "gate.sampling.rat", (2, 1)),
        ("[[gate.rules]]\npatern = 'a'", "gate.rules[0].patern", (1, 8)),
        ("[[gate.rules]]\npattern = 'a'\nsampling = { ever = 1 }", "gate.rules[0].sampling.ever", (1, 8)),
    ];
    for (text, key, (line, column)) in cases {
        let error = refused(text);
        if key.is_empty() {
            assert!(error.starts_with("invalid flush.interval: {\"max\":1} (expected a duration"), "{error}");
        } else {
            assert_eq!(error, format!("unknown key {key} in line {line}, column {column}"));
        }
    }
    assert_eq!(Config::from_toml("[gate]\n[flush]\n[memoryLimits]"), Ok(Config::default()));
}

#[test]
fn names_of_one_setting_say_the_same_or_are_refused_by_name() {
    let contradictions = [
        ("capacity = 5\nmaxQueueSize = 6", "capacity is 5, but maxQueueSize is 6 in line 2, column 1"),
        (
            "maxQueueSize = 5\n[memoryLimits]\nmaxQueueSize = 6",
            "maxQueueSize is 5, but memoryLimits.maxQueueSize is 6 in line 3, column 1",
        ),
        (
            "enabled = true\ngate.enabled = false",
            "enabled is true, but gate.enabled is false in line 2, column 6",
        ),
        (
            "flush.interval = 1\nflushInterval = 1",
            "flushInterval is 1, but flush.interval is 1 in line 1, column 7",
        ),
        ("batch_size = 1\n'batch_size ' = 2", ""),
    ];
    for (text, expected) in contradictions {
        let error = refused(text);
        if expected.is_empty() {
            assert_eq!(error, "unknown key batch_size  in line 2, column 1");
        } else {
            assert_eq!(error, format!("{expected}: they are one setting"));
        }
    }
    let same = "capacity = 5\nmaxQueueSize = '5'\nring_capacity = 5\nmemoryLimits.maxQueueSize = 5";
    assert_eq!(Config::from_toml(same).unwrap().capacity, 5);
    let same = "flush.interval = '1s 500ms'\nflushInterval = 1500";
    let interval = Duration::from_millis(1_500);
    assert_eq!(Config::from_toml(same).unwrap().flush, FlushStrategy::Hybrid { events: 100, interval });
    let layers = Config::loader().toml("capacity = 5").toml("maxQueueSize = 6").load();
    assert_eq!(layers.unwrap().capacity, 6, "two layers do not contradict each other");
}

#[test]
fn every_alias_means_its_setting() {
    let same = |alias: &str, key: &str| {
        let [alias, key] = [alias, key].map(|text| Config::from_toml(text).unwrap());
        assert_ne!(key, Config::default());
        assert_eq!(alias, key);
    };
    same("ring_capacity = 7", "capacity = 7");
    same("maxQueueSize = 7", "capacity = 7");
    same("memoryLimits.maxQueueSize = 7", "capacity = 7");
    same("performanceLimits.maxQueueLatency = 100", "health.max_latency = '100ms'");
    same("performanceLimits.targetProcessingRate = 500", "health.min_rate = 500");
    same("maxMemoryMB = 7", "max_bytes = 7340032");
    same("memoryLimits.totalMemoryMB = '7'", "max_bytes = 7340032");
    same("maxMemoryMB = 'none'", "max_bytes = 'none'");
    same("flushInterval = 250", "flush.interval = '250ms'");
    same("flushInterval = '2s'", "flush.interval = 2");
    same("flushInterval = '250'", "flush.interval = '250ms'");
    for nothing in ["nan", "inf", "'NaN'"] {
        let said = refused(&format!("performanceLimits.maxQueueLatency = {nothing}"));
        assert!(said.starts_with("invalid performanceLimits.maxQueueLatency: "), "{said}");
    }
    same("shutdown_timeout = 7", "stop_timeout = '7s'");
    same("reliabilityLimits.gracefulShutdownTimeout = 7000", "stop_timeout = '7s'");
    same("enabled = false", "gate.enabled = false");
    same("performanceLimits.maxInputRate = 7", "gate.rate_limit = 7");
    same("maxEventSize = 7", "gate.max_event_bytes = 7");
    same("memoryLimits.maxEventSize = 7", "gate.max_event_bytes = 7");
}

#[test]
fn a_choice_and_what_belongs_to_it_may_stand_in_different_layers() {
    let flush = |loader: forebay::config::ConfigLoader| loader.load().map(|config| config.flush);
    let size = Config::loader().toml("flush = { strategy = 'size', events = 7 }");
    assert_eq!(flush(size.clone()), Ok(FlushStrategy::Size { events: 7 }));
    let hybrid = size.vars([("FOREBAY_FLUSH__STRATEGY", "hybrid")]);
    let interval = Duration::from_secs(1);
    assert_eq!(flush(hybrid), Ok(FlushStrategy::Hybrid { events: 7, interval }));

    let overflow = |loader: forebay::config::ConfigLoader| loader.load().map(|config| config.overflow);
    let block = Config::loader().toml("overflow = 'block'\noverflow_timeout = '5ms'");
    let timeout = Duration::from_millis(7);
    let longer = block.clone().vars([("FOREBAY_OVERFLOW_TIMEOUT", "7ms")]);
    assert_eq!(overflow(longer), Ok(Overflow::Block { timeout }));
    assert_eq!(overflow(block.vars([("FOREBAY_OVERFLOW", "drop_newest")])), Ok(Overflow::DropNewest));
    let analytics = Config::loader().preset(Preset::Analytics).toml("overflow_timeout = '7ms'");
    assert_eq!(overflow(analytics), Ok(Overflow::Block { timeout }));
    let upside_down = Config::loader()
        .toml("overflow_timeout = '5ms'")
        .vars([("FOREBAY_OVERFLOW", "block")])
        .load()
        .unwrap_err();
    let expected =
        "invalid overflow_timeout: \"5ms\" (expected none with overflow = drop_oldest) in line 1, column 1";
    assert_eq!(upside_down.to_string(), expected);
}

#[test]
fn a_text_that_is_no_toml_is_refused_with_line_and_column() {
    let error = Config::from_toml("capacity = 5\n\nshards = = 2").unwrap_err();
    assert!(
        matches!(error, ConfigError::Syntax { place: ConfigPlace::Text { line: 3, column: 10, .. }, .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.starts_with("no TOML in line 3, column 10: "), "{text}");
    let twice = Config::from_toml("capacity = 5\ncapacity = 5").unwrap_err();
    assert!(
        matches!(twice, ConfigError::Syntax { place: ConfigPlace::Text { line: 2, column: 1, .. }, .. }),
        "{twice:?}"
    );
}

#[test]
fn a_file_is_named_in_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.toml");
    let load = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        Config::from_toml_file(&path).map_err(|error| error.to_string())
    };
    let name = path.display();
    assert_eq!(load(b"capacity = 5"), Ok(Config::default().with_capacity(5)));
    assert_eq!(load(b"capasity = 5"), Err(format!("unknown key capasity in {name}:1:1")));
    let zero = format!("invalid maxQueueSize: 0 (expected 1..=1073741824) in {name}:3:5");
    assert_eq!(load(b"shards = 1\n\n    maxQueueSize = 0"), Err(zero));
    assert!(load(b"=").unwrap_err().starts_with(&format!("no TOML in {name}:1:1: ")));
    assert!(load(b"\xff").unwrap_err().starts_with(&format!("cannot read {name}: ")));
    let missing = Config::from_toml_file(folder.path().join("missing")).unwrap_err();
    assert!(
        matches!(&missing, ConfigError::Unreadable { path, .. } if path.ends_with("missing")),
        "{missing:?}"
    );
}

#[test]
fn what_is_loaded_is_checked_as_a_whole_and_traced_to_the_highest_layer_that_says_it() {
    let loader = Config::loader().toml("shards = 3\n[[gate.rules]]\npattern = 'a'\nsampling = { every = 0 }");
    let expected = "invalid shards: 3 (expected 1, 2, 4, 8, 16, 32 or 64) in line 1, column 1";
    assert_eq!(loader.clone().load().unwrap_err().to_string(), expected);
    let five = loader.clone().vars([("FOREBAY_SHARDS", "5")]).load().unwrap_err().to_string();
    assert!(
        five.starts_with("invalid FOREBAY_SHARDS: 5 (expected 1, 2, ")
            && five.ends_with(" in the environment"),
        "{five}"
    );
    let rule = loader.vars([("FOREBAY_SHARDS", "4")]).load().unwrap_err();
    let expected =
        "invalid gate.rules.sampling: every 0th (expected every 1st, or a later one) in line 2, column 8";
    assert_eq!(rule.to_string(), expected, "a lower layer that was wrong does not matter");
    assert_eq!(BuildError::from(rule).to_string(), expected);
}

#[test]
fn a_part_of_the_settings_of_a_program_may_be_those_of_forebay() {
    #[derive(serde::Deserialize)]
    struct Program {
        name: String,
        events: Config,
    }
    let text = "name = 'a'\n[events]\npreset = 'training'\nflush.interval = 0.5";
    let program: Program = toml::from_str(text).unwrap();
    let flush = FlushStrategy::Hybrid { events: 512, interval: Duration::from_millis(500) };
    assert_eq!((program.name.as_str(), program.events), ("a", Config::training().with_flush(flush)));
    let wrong = toml::from_str::<Program>("name = 'a'\nevents.capacity = 0").map(|program| program.name);
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("invalid capacity: 0 (expected 1..=1073741824) in the given settings")
    );
}

#[test]
fn the_documented_example_is_what_it_seems_to_be() {
    let document = include_str!("../../docs/configuration.md");
    let text = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let mut lowest = NameRule::new("system.*");
    lowest.min_priority = Some(Priority::Low);
    let expected = Config::production()
        .with_capacity(20_000)
        .with_overflow(Overflow::Block { timeout: Duration::from_millis(5) })
        .with_stop_timeout(Duration::from_secs(15))
        .with_session_id(Some("run-7".to_owned()))
        .with_flush(FlushStrategy::Hybrid { events: 512, interval: Duration::from_millis(500) })
        .with_gate(
            Config::production()
                .gate
                .with_deny(vec!["*.debug".into(), "loader.{read,wait}".into()])
                .with_min_priority(Priority::Normal)
                .with_rate_limit(100_000)
                .with_sampling(Some(Sampling::Rate {
                    rate: 0.25,
                    min_per_window: 10,
                    window: Duration::from_secs(1),
                }))
                .with_rules(vec![
                    NameRule::new("gradients.*").with_sampling(Sampling::Every { nth: 100 }),
                    lowest,
                ]),
        );
    assert_eq!(Config::from_toml(text), Ok(expected));
}

fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
    let pattern = "[a-z0-9._*?-]{1,12}|\\{a,b\\}[,\"\\\\\u{7f}é]|\\[!,x\\]";
    prop::collection::vec(pattern.prop_map(|text| Pattern::new(text).unwrap()), 0..4)
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let window = (1_000_000..=86_400_000_000_000_u64).prop_map(Duration::from_nanos);
    prop_oneof![
        (0.0..=1.0, any::<u32>(), window).prop_map(|(rate, min_per_window, window)| Sampling::Rate {
            rate,
            min_per_window,
            window
        }),
        (1..=u32::MAX).prop_map(|nth| Sampling::Every { nth }),
        (any::<u32>(), 1..=u32::MAX).prop_map(|(first, every)| Sampling::FirstThenEvery { first, every }),
        (0.0..=1.0).prop_map(|rate| Sampling::Keyed { rate }),
    ]
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(vec![Priority::Critical, Priority::Normal, Priority::Low])
}

fn gate() -> impl Strategy<Value = GateConfig> {
    let rule = (patterns(), prop::option::of(priority()), prop::option::of(sampling()));
    let rule = rule.prop_map(|(patterns, min_priority, sampling)| {
        let mut rule = NameRule::new(patterns.first().cloned().unwrap_or_else(|| "x".into()));
        (rule.min_priority, rule.sampling) = (min_priority, sampling);
        rule
    });
    let names = (patterns(), patterns(), prop::collection::vec(rule, 0..4), any::<bool>());
    let some = prop::option::of::<std::ops::RangeInclusive<usize>>;
    let numbers = (prop::option::of(1..=u32::MAX), some(1..=usize::MAX), any::<Option<u64>>());
    (names, numbers, priority(), prop::option::of(sampling())).prop_map(
        |((allow, deny, rules, enabled), (rate_limit, max_event_bytes, seed), min_priority, sampling)| {
            GateConfig::default()
                .with_enabled(enabled)
                .with_allow(allow)
                .with_deny(deny)
                .with_rules(rules)
                .with_min_priority(min_priority)
                .with_sampling(sampling)
                .with_rate_limit(rate_limit)
                .with_max_event_bytes(max_event_bytes)
                .with_seed(seed)
        },
    )
}

fn flush() -> impl Strategy<Value = FlushStrategy> {
    let interval = || any::<Duration>().prop_filter("not zero", |interval| !interval.is_zero());
    prop_oneof![
        interval().prop_map(|interval| FlushStrategy::Time { interval }),
        (1..=usize::MAX).prop_map(|events| FlushStrategy::Size { events }),
        (1..=usize::MAX, interval())
            .prop_map(|(events, interval)| FlushStrategy::Hybrid { events, interval }),
    ]
}

fn overflow() -> impl Strategy<Value = Overflow> {
    let block = any::<Duration>().prop_map(|timeout| Overflow::Block { timeout });
    prop_oneof![Just(Overflow::DropOldest), Just(Overflow::DropNewest), block]
}

fn config() -> impl Strategy<Value = Config> {
    let slots = || 1..=1_usize << 30;
    let per_thread = (0..=1024_usize).prop_map(|max| (1, Lanes::PerThread { max }));
    let shared = (0..=6_u32).prop_map(|power| (1 << power, Lanes::Shared));
    let lanes = (slots(), slots(), slots(), prop_oneof![per_thread, shared]);
    let waits = any::<[Duration; 5]>();
    let text = || prop::option::of("\\PC{1,9}".prop_filter("it is read as none", |id| id.trim() != "none"));
    let origin = (text(), text(), text(), any::<Option<u64>>());
    let thread = ("[^\0]{0,9}", any::<Option<usize>>(), origin);
    let number = || prop::option::of(1..=usize::MAX);
    let threshold =
        || (0.001..=1.0_f64, 0.0..=1.0_f64).prop_map(|(raise, part)| Threshold::new(raise, raise * part));
    let wait = || any::<Duration>().prop_map(|wait| wait.max(Duration::from_nanos(1)));
    let limits = (wait(), prop::option::of(wait()), prop::option::of(0.001..1e9_f64));
    let failing = (0.01..=0.99_f64).prop_map(|raise| Threshold::new(raise, raise.min(0.1)));
    let health = (threshold(), threshold(), failing, limits, any::<u64>());
    let health = health.prop_map(
        |(queue_depth, memory, failing, (max_busy_time, max_latency, min_rate), max_dead_letters)| {
            HealthConfig::default()
                .with_queue_depth(queue_depth)
                .with_memory(memory)
                .with_failing(failing)
                .with_max_busy_time(max_busy_time)
                .with_max_latency(max_latency)
                .with_min_rate(min_rate)
                .with_max_dead_letters(max_dead_letters)
        },
    );
    let choices = (number(), flush(), overflow(), any::<bool>(), number());
    (lanes, waits, thread, choices, gate(), health).prop_map(
        |(lanes, waits, thread, choices, gate, health)| {
            let (batch_size, flush, overflow, is_manual, max_bytes) = choices;
            let (thread_name, thread_stack_size, (session_id, source, host, rank)) = thread;
            // Only with a wait of a day at most.
            let is_manual = is_manual && !matches!(overflow, Overflow::Block { .. });
            Config::default()
                .with_capacity(lanes.0)
                .with_critical_capacity(lanes.1)
                .with_low_capacity(lanes.2)
                .with_shards(lanes.3.0)
                .with_lanes(lanes.3.1)
                .with_max_bytes(max_bytes)
                .with_batch_size(batch_size)
                .with_overflow(overflow)
                .with_gate(gate)
                .with_health(health)
                .with_flush(if is_manual { FlushStrategy::Manual } else { flush })
                .with_critical_timeout(if is_manual { Duration::from_nanos(1) } else { waits[0] })
                .with_flush_timeout(waits[1])
                .with_stop_timeout(waits[2])
                .with_drop_timeout(waits[3])
                .with_max_nap(waits[4])
                .with_session_id(session_id)
                .with_source(source)
                .with_host(host)
                .with_rank(rank)
                .with_thread_name(thread_name)
                .with_thread_stack_size(thread_stack_size.map(|bytes| bytes >> 2))
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(config in config()) {
        prop_assert_eq!(config.validate(), Ok(()));
        let text = config.to_toml();
        let read = Config::from_toml(&text);
        prop_assert_eq!(read.as_ref(), Ok(&config), "{}", text);
        let over = Config::loader().preset(Preset::Analytics).toml(&text).load();
        prop_assert_eq!(over.as_ref(), Ok(&config), "over a preset: {}", text);
        let json = serde_json::to_string(&config).unwrap();
        let back: Config = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&back, &config, "{}", json);
    }
}
