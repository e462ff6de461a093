//! Settings from the environment, by serde, and from presets. No test changes the environment of its process.

use std::time::Duration;

use forebay::config::{ConfigError, Preset, Sampling};
use forebay::{Collector, Config, FlushStrategy, Overflow, Priority};

fn load<const N: usize>(vars: [(&str, &str); N]) -> Result<Config, ConfigError> {
    Config::loader().vars(vars).load()
}

fn refused<const N: usize>(vars: [(&str, &str); N]) -> String {
    load(vars).unwrap_err().to_string()
}

#[test]
fn without_variables_every_setting_is_the_default() {
    assert_eq!(load([]), Ok(Config::default()));
    assert_eq!(load([("PATH", "/bin"), ("XFOREBAY_CAPACITY", "x"), ("FOREBAY", "x")]), Ok(Config::default()));
}

#[test]
fn a_variable_that_is_no_setting_is_an_error_that_names_it() {
    for name in
        ["FOREBAY_CAPASITY", "FOREBAY_", "FOREBAY_capacity", "FOREBAY_FLUSH_INTERVAL", "FOREBAY_MAXQUEUESIZE"]
    {
        let error = load([(name, "1")]).unwrap_err();
        assert!(matches!(&error, ConfigError::UnknownKey { key, .. } if key == name), "{error:?}");
        assert_eq!(error.to_string(), format!("unknown key {name} in the environment"));
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let empty = ["CAPACITY", "PRESET", "SESSION_ID", "FLUSH__INTERVAL", "GATE__ALLOW", "BUS__WORKERS"];
    for name in empty.map(|name| format!("FOREBAY_{name}")) {
        assert_eq!(load([(name.as_str(), "")]), Ok(Config::default()), "{name}");
    }
    for name in ["FOREBAY_CAPASITY", "FOREBAY_", "FOREBAY_SERVICE_HOST"] {
        let config = load([(name, "")]).unwrap();
        assert_eq!((config.warnings(), &config), (Vec::new(), &Config::default()), "{name}");
    }
    let config = load([("FOREBAY_PRESET", "training"), ("FOREBAY_CAPACITY", "")]).unwrap();
    assert_eq!(config, Preset::Training.config(), "the lower layer holds");
    assert!(load([("FOREBAY_CAPACITY", " ")]).is_err(), "a blank is a value");
}

#[test]
fn the_token_of_the_command_line_is_ignored() {
    let config =
        load([("FOREBAY_TOKEN", "a-secret-of-forebay-serve"), ("FOREBAY_CAPACITY", "7000")]).unwrap();
    assert_eq!((config.warnings(), config), (Vec::new(), Config::default().with_capacity(7_000)));
    for other in ["FOREBAY_TOKENS", "FOREBAY__TOKEN", "FOREBAY_TOKEN_FILE"] {
        assert!(matches!(load([(other, "1")]), Err(ConfigError::UnknownKey { .. })), "{other}");
    }
}

#[test]
fn variables_of_a_kubernetes_service_are_ignored_with_a_warning() {
    let injected = [
        "FOREBAY_SERVICE_HOST",
        "FOREBAY_SERVICE_PORT",
        "FOREBAY_SERVICE_PORT_HTTP",
        "FOREBAY_PORT",
        "FOREBAY_PORT_80_TCP",
        "FOREBAY_PORT_80_TCP_PROTO",
        "FOREBAY_PORT_80_TCP_PORT",
        "FOREBAY_PORT_80_TCP_ADDR",
        "FOREBAY_PORT_5353_UDP",
        "FOREBAY_EVENT_SINK_SERVICE_HOST",
        "FOREBAY_EVENT_SINK_SERVICE_PORT_GRPC_WEB",
        "FOREBAY_EVENT_SINK_PORT_443_TCP_ADDR",
        "FOREBAY_PORT_PORT_80_TCP",
    ];
    for name in injected {
        let config = load([(name, "tcp://10.0.0.1:80"), ("FOREBAY_CAPACITY", "7")]).unwrap();
        let reported: Vec<String> = config.warnings().iter().map(|warning| warning.to_string()).collect();
        assert!(reported.iter().any(|said| said.contains(name)), "{name}: {reported:?}");
        assert_eq!(config.with_ignored_variables(vec![]), Config::default().with_capacity(7));
    }
    for typo in [
        "FOREBAY_PORTS",
        "FOREBAY_PORT_80",
        "FOREBAY_PORT_80_HTTP",
        "FOREBAY_PORT_80_TCP_X",
        "FOREBAY_SERVICE",
    ] {
        assert!(matches!(load([(typo, "1")]), Err(ConfigError::UnknownKey { .. })), "{typo}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_an_error_that_names_it() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let bad = |name: &[u8], value: &[u8]| {
        let var = (OsStr::from_bytes(name), OsStr::from_bytes(value));
        Config::loader().vars([var]).load().map_err(|error| error.to_string())
    };
    let wrong = "\"1\\xFF\" (expected UTF-8) in the environment";
    assert_eq!(bad(b"FOREBAY_CAPACITY", b"1\xff"), Err(format!("invalid FOREBAY_CAPACITY: {wrong}")));
    assert_eq!(bad(b"FOREBAY_PRESET", b"1\xff"), Err(format!("invalid FOREBAY_PRESET: {wrong}")));
    assert_eq!(
        bad(b"FOREBAY_A\xff", b"1"),
        Err("unknown key FOREBAY_A\u{fffd} in the environment".to_owned())
    );
    assert_eq!(bad(b"OTHER_\xff", b"\xff"), Ok(Config::default()));
}

#[test]
fn a_value_that_is_not_allowed_is_named_by_its_variable() {
    let shards = "invalid FOREBAY_SHARDS: 3 (expected 1, 2, 4, 8, 16, 32 or 64) in the environment";
    assert_eq!(refused([("FOREBAY_SHARDS", "3")]), shards);
    let error = load([("FOREBAY_SHARDS", "3")]).unwrap_err();
    assert!(matches!(error, ConfigError::InvalidAt { field: "shards", .. }), "{error:?}");
    let zero = refused([("FOREBAY_FLUSH__INTERVAL", "0")]);
    assert_eq!(zero, "invalid FOREBAY_FLUSH__INTERVAL: 0ns (expected more than zero) in the environment");
    let rules = refused([("FOREBAY_GATE__RULES", "a")]);
    assert!(
        rules.starts_with("invalid FOREBAY_GATE__RULES[0]: \"a\" (expected a table with pattern"),
        "{rules}"
    );
    let wait = refused([
        ("FOREBAY_OVERFLOW", "block"),
        ("FOREBAY_OVERFLOW_TIMEOUT", "2days"),
        ("FOREBAY_FLUSH__STRATEGY", "manual"),
    ]);
    assert!(wait.starts_with("invalid FOREBAY_OVERFLOW_TIMEOUT: 172800s (expected a day at most"), "{wait}");
}

#[test]
fn durations_are_texts_or_seconds() {
    let wait = |text: &str| load([("FOREBAY_CRITICAL_TIMEOUT", text)]).map(|config| config.critical_timeout);
    for (text, millis) in [("250ms", 250), ("1s 500ms", 1_500), (" 2min ", 120_000), ("1.5", 1_500), ("0", 0)]
    {
        assert_eq!(wait(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["-1", "inf", "nan", "1 parsec", "1e300", "none"] {
        let error = wait(text).unwrap_err().to_string();
        assert!(error.starts_with("invalid FOREBAY_CRITICAL_TIMEOUT: "), "{error}");
        assert!(error.contains("(expected a duration such as"), "{error}");
    }
}

#[test]
fn a_sampling_has_one_of_four_forms() {
    let sampling = |text: &str| load([("FOREBAY_GATE__SAMPLING", text)]).map(|config| config.gate.sampling);
    let second = Duration::from_secs(1);
    let full = Duration::from_millis(1_500);
    let forms = [
        ("none", None),
        ("rate=0.5", Some(Sampling::Rate { rate: 0.5, min_per_window: 0, window: second })),
        (
            "rate = 1, min_per_window = 3, window = 1s 500ms",
            Some(Sampling::Rate { rate: 1.0, min_per_window: 3, window: full }),
        ),
        ("every=10", Some(Sampling::Every { nth: 10 })),
        ("first=5,every=10", Some(Sampling::FirstThenEvery { first: 5, every: 10 })),
        ("keyed=0.25", Some(Sampling::Keyed { rate: 0.25 })),
    ];
    for (text, expected) in forms {
        assert_eq!(sampling(text), Ok(expected), "{text}");
    }
    for text in ["0.5", "first=5", "rate=1,every=2", "every=1,window=1s", "every=1,every=2", "keyed=1,rate=1"]
    {
        let error = sampling(text).unwrap_err().to_string();
        let start = format!("invalid FOREBAY_GATE__SAMPLING: {text:?} (expected rate");
        assert!(error.starts_with(&start), "{error}");
    }
    let part = sampling("rate=much").unwrap_err().to_string();
    let expected = "invalid FOREBAY_GATE__SAMPLING.rate: \"much\" (expected a number) in the environment";
    assert_eq!(part, expected);
    let unknown = sampling("rat=1").unwrap_err().to_string();
    assert_eq!(unknown, "unknown key FOREBAY_GATE__SAMPLING.rat in the environment");
    let rate = sampling("rate=nan").unwrap_err().to_string();
    assert_eq!(rate, "invalid FOREBAY_GATE__SAMPLING.rate: \"nan\" (expected a number) in the environment");
    let rate = sampling("rate=2").unwrap_err().to_string();
    let expected =
        "invalid FOREBAY_GATE__SAMPLING: a rate of 2 (expected a rate from 0 to 1) in the environment";
    assert_eq!(rate, expected);
}

#[test]
fn patterns_are_separated_by_commas_that_are_not_their_own() {
    let deny = |text: &str| load([("FOREBAY_GATE__DENY", text)]).map(|config| config.gate.deny);
    let all = deny("*.debug, loader.{read,wait},[,{]x ,").unwrap();
    let all: Vec<&str> = all.iter().map(forebay::Pattern::as_str).collect();
    assert_eq!(all, ["*.debug", "loader.{read,wait}", "[,{]x"]);
    assert_eq!(deny(""), Ok(Vec::new()));
    let error = deny("a,[b").unwrap_err().to_string();
    assert!(
        error.starts_with(
            "invalid FOREBAY_GATE__DENY[1]: \"[b\" (expected a pattern: a [ is not closed) in the environment"
        ),
        "{error}"
    );
}

#[test]
fn a_policy_and_a_strategy_have_what_belongs_to_them_and_nothing_else() {
    let block = [("FOREBAY_OVERFLOW", "block"), ("FOREBAY_OVERFLOW_TIMEOUT", "5ms")];
    let timeout = Duration::from_millis(5);
    assert_eq!(load(block).unwrap().overflow, Overflow::Block { timeout });
    let missing = "invalid overflow_timeout: missing (expected a value with overflow = block)";
    assert_eq!(refused([block[0]]), missing);
    let unused = "invalid FOREBAY_OVERFLOW_TIMEOUT: \"5ms\" (expected none with overflow = drop_oldest) in the environment";
    assert_eq!(refused([block[1]]), unused);

    let second = Duration::from_secs(1);
    let strategies = [
        ("time", FlushStrategy::Time { interval: second }),
        ("size", FlushStrategy::Size { events: 100 }),
        ("hybrid", FlushStrategy::Hybrid { events: 100, interval: second }),
        ("manual", FlushStrategy::Manual),
    ];
    for (name, strategy) in strategies {
        let chosen = ("FOREBAY_FLUSH__STRATEGY", name);
        assert_eq!(load([chosen]).unwrap().flush, strategy);
        let events = load([chosen, ("FOREBAY_FLUSH__EVENTS", "7")]);
        let interval = load([chosen, ("FOREBAY_FLUSH__INTERVAL", "7")]);
        assert_eq!(events.is_ok(), matches!(name, "size" | "hybrid"), "{name}: {events:?}");
        assert_eq!(interval.is_ok(), matches!(name, "time" | "hybrid"), "{name}: {interval:?}");
    }
    let missing = refused([("FOREBAY_FLUSH__INTERVAL", "none")]);
    assert_eq!(missing, "invalid flush.interval: missing (expected a value with flush.strategy = hybrid)");
}

#[test]
fn the_environment_chooses_a_preset_before_the_program() {
    let loader = || Config::loader().preset(Preset::Training);
    assert_eq!(loader().load(), Ok(Config::training()));
    assert_eq!(loader().vars([("FOREBAY_PRESET", "analytics")]).load(), Ok(Config::analytics()));
    let over = loader().vars([("FOREBAY_CAPACITY", "5")]).load();
    assert_eq!(over, Ok(Config::training().with_capacity(5)));
    let allowed = "training, analytics, development, production";
    let error = refused([("FOREBAY_PRESET", "prod")]);
    assert_eq!(error, format!("invalid FOREBAY_PRESET: \"prod\" (expected {allowed}) in the environment"));
    let error = "prod".parse::<Preset>().unwrap_err().to_string();
    assert_eq!(error, format!("invalid preset: \"prod\" (expected {allowed})"));
}

#[test]
fn what_a_preset_replaces_waits_for_a_layer_that_takes_it_up() {
    let hybrid = load([("FOREBAY_PRESET", "development"), ("FOREBAY_FLUSH__STRATEGY", "hybrid")]).unwrap();
    let interval = Duration::from_millis(50);
    assert_eq!(hybrid.flush, FlushStrategy::Hybrid { events: 100, interval });
}

#[test]
fn every_preset_has_its_documented_values_and_builds_a_collector() {
    let hybrid = |events, seconds| FlushStrategy::Hybrid { events, interval: Duration::from_secs(seconds) };
    let time = FlushStrategy::Time { interval: Duration::from_millis(50) };
    let block = Overflow::Block { timeout: Duration::from_millis(10) };
    let expected = [
        (Preset::Training, 65_536, Overflow::DropOldest, hybrid(512, 1), None),
        (Preset::Analytics, 10_000, block, hybrid(1_000, 30), None),
        (Preset::Development, 1_000, Overflow::DropOldest, time, None),
        (Preset::Production, 50_000, Overflow::DropOldest, hybrid(100, 1), Some(5_120)),
    ];
    assert_eq!(expected.map(|(preset, ..)| preset), Preset::ALL);
    for (preset, capacity, overflow, flush, bytes) in expected {
        let config = preset.config();
        assert_eq!((config.capacity, config.overflow, config.flush), (capacity, overflow, flush), "{preset}");
        assert_eq!((config.gate.max_event_bytes, config.gate.rate_limit), (bytes, None), "{preset}");
        assert_eq!(config.stop_timeout, Duration::from_secs(10), "{preset}");
        assert_eq!((config.validate(), config.warnings()), (Ok(()), Vec::new()), "{preset}");
        assert_eq!(preset.to_string().parse(), Ok(preset));
        let collector = Collector::builder().config(config).start().unwrap();
        collector.stop().unwrap();
    }
}

#[test]
fn serde_reads_and_writes_the_same_keys() {
    let config: Config = serde_json::from_str(
        r#"{ "preset": "production", "maxQueueSize": 7, "flush": { "interval": 2.5 }, "batch_size": null,
             "gate": { "min_priority": "normal", "sampling": { "every": 3 } }, "memoryLimits": {} }"#,
    )
    .unwrap();
    let interval = Duration::from_millis(2_500);
    assert_eq!((config.capacity, config.batch_size), (7, None));
    assert_eq!(config.flush, FlushStrategy::Hybrid { events: 100, interval });
    assert_eq!((config.gate.min_priority, config.gate.max_event_bytes), (Priority::Normal, Some(5_120)));
    assert_eq!(config.gate.sampling, Some(Sampling::Every { nth: 3 }));

    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["flush"]["interval"], "2s 500ms");
    assert_eq!(serde_json::from_value::<Config>(written).unwrap(), config);

    let error = |text| serde_json::from_str::<Config>(text).unwrap_err().to_string();
    assert_eq!(
        error(r#"{ "flush": { "intervall": 1 } }"#),
        "unknown key flush.intervall in the given settings"
    );
    let zero = "invalid capacity: 0 (expected 1..=1073741824) in the given settings";
    assert_eq!(error(r#"{ "capacity": 0 }"#), zero);
}
