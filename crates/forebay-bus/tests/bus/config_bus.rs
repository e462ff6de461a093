//! The settings of a bus from TOML, variables and serde.

use std::time::Duration;

use endless::Endless;
use forebay::{Collector, Config, FlushStrategy, config::Preset};
use forebay_bus::{BusConfig, Mode, OnWorkerFailure, Scaling};
use serde::Deserialize;

#[path = "../../../../tests/support/endless.rs"]
mod endless;

/// Reads the settings of a bus.
fn bus(text: &str) -> Result<BusConfig, String> {
    BusConfig::load(Config::loader().toml(text)).map_err(|error| error.to_string())
}

#[test]
fn a_bus_has_keys_of_its_own_and_those_of_its_collector() {
    assert_eq!(bus(""), Ok(BusConfig::default()));
    let text = "
        capacity = 7
        [bus]
        mode = 'inline'
        workers = 3
        scaling = { max = 5, interval = '2s' }
        max_subscribers = 4
        handler_queue = 5
        handler_bytes = 6
        deadline = '7s'
        dead_letters = 8
        max_depth = 9
        on_worker_failure = 'refuse'
        [bus.retry]
        delays = ['10ms', 1]
        retries = 4
        factor = 3
        cap = '20s'
        jitter = 0.5
        max_elapsed = '1min'
    ";
    let read = bus(text).unwrap();
    let scaling = Scaling::default().with_max(5).with_interval(Duration::from_secs(2));
    let [first, second] = [10, 1000].map(Duration::from_millis);
    let retry = read.retry.clone();
    let expected = BusConfig::default()
        .with_mode(Mode::Inline)
        .with_workers(3)
        .with_scaling(Some(scaling))
        .with_max_subscribers(4)
        .with_handler_queue(5)
        .with_handler_bytes(6)
        .with_deadline(Duration::from_secs(7))
        .with_dead_letters(8)
        .with_max_depth(9)
        .with_on_worker_failure(OnWorkerFailure::Refuse)
        .with_retry(retry.clone());
    let collector = expected.collector.clone().with_capacity(7);
    assert_eq!(read, expected.with_collector(collector));
    let nine = Duration::from_secs(9);
    let delays: Vec<Option<Duration>> = (0..5).map(|number| retry.delay(number)).collect();
    assert_eq!(delays, [Some(first), Some(second), Some(second * 3), Some(nine), None]);
    assert_eq!(bus(&read.to_toml()), Ok(read.clone()), "what is written is read as the same");
    let json = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<BusConfig>(&json).unwrap(), read);
    let variables =
        [("FOREBAY_BUS__SCALING", "max=5,interval=2s"), ("FOREBAY_BUS__RETRY__DELAYS", "10ms, 1")];
    let config = BusConfig::load(Config::loader().vars(variables)).unwrap();
    assert_eq!((config.scaling, config.retry.delay(1)), (Some(scaling), Some(second)));
}

#[test]
fn the_names_of_the_documents_are_settings_of_a_bus() {
    let same = |alias: &str, key: &str| {
        assert_ne!(bus(key), Ok(BusConfig::default()));
        assert_eq!(bus(alias), bus(key));
    };
    same("workerCount = 7", "bus.workers = 7");
    same("maxSubscribers = 7", "bus.max_subscribers = 7");
    same("retryAttempts = 7", "bus.retry.retries = 7");
    same("reliabilityLimits.maxRetryAttempts = 7", "bus.retry.retries = 7");
    same("retryDelays = [1000, 2500, 4000]", "bus.retry.delays = ['1s', '2500ms', '4s']");
    same("retryDelays = '1000, 2500'", "bus.retry.delays = ['1s', '2500ms']");
    same("maxQueueSize = 7", "capacity = 7");
    same("fallbackToSync = false", "bus.on_worker_failure = 'refuse'");
    same("fallbackToSync = 'false'", "bus.on_worker_failure = 'refuse'");
    assert_eq!(bus("fallbackToSync = true"), Ok(BusConfig::default()));
    let twice = bus("retryAttempts = 2\nreliabilityLimits.maxRetryAttempts = 3").unwrap_err();
    assert_eq!(
        twice,
        "retryAttempts is 2, but reliabilityLimits.maxRetryAttempts is 3 in line 2, column 19: they are one setting"
    );
}

#[test]
fn what_is_wrong_with_a_bus_is_reported_by_its_key_and_a_collector_passes_over_it() {
    let said = "invalid bus.workers: 0 (expected 1 to 256) in line 1, column 5";
    assert_eq!(bus("bus.workers = 0"), Err(said.to_owned()));
    let said = "invalid bus.scaling.max: 9 (expected scaling.min or more) in line 1, column 27";
    assert_eq!(bus("bus.scaling = { min = 12, max = 9 }"), Err(said.to_owned()));
    let said = "invalid bus.retry.jitter: 2 (expected 0 to 1) in line 1, column 11";
    assert_eq!(bus("bus.retry.jitter = 2"), Err(said.to_owned()));
    assert_eq!(bus("bus.wrokers = 2"), Err("unknown key bus.wrokers in line 1, column 5".to_owned()));
    let said = "unknown key bus.scaling.most in line 1, column 13";
    assert_eq!(bus("bus.scaling.most = 2"), Err(said.to_owned()));
    assert_eq!(bus("capacity = 0").unwrap_err(), Config::from_toml("capacity = 0").unwrap_err().to_string());
    // The variables of a process are one for all.
    let shared = [("FOREBAY_BUS__WORKERS", "2"), ("FOREBAY_CAPACITY", "7")];
    assert_eq!(Config::loader().vars(shared).load().unwrap(), Config::default().with_capacity(7));
    assert_eq!(Config::from_toml("bus.workers = 'two'\nretryDelays = 1"), Ok(Config::default()));
    let is_of_a_bus = |line: &str| line.trim_start_matches('[').starts_with("bus");
    assert!(!Config::default().to_toml().lines().any(is_of_a_bus));
    // With its name in quotes as well.
    assert_eq!(Config::from_toml("'bus.mode' = 'inline'"), Ok(Config::default()));
    assert!(Config::from_toml("'business.mode' = 'inline'").is_err());
}

#[test]
fn a_limit_of_letters_is_reported_of_the_bus_or_of_the_health_that_has_it() {
    let said = "invalid bus.dead_letters: 0 (expected 1 or more) in line 1, column 5";
    assert_eq!(bus("bus.dead_letters = 0\nhealth.max_dead_letters = 5"), Err(said.to_owned()));
    let loader =
        Config::loader().toml("bus.dead_letters = 0").vars([("FOREBAY_HEALTH__MAX_DEAD_LETTERS", "5")]);
    assert_eq!(BusConfig::load(loader).unwrap_err().to_string(), said);
}

#[test]
fn a_list_of_delays_has_no_empty_part() {
    for wrong in ["','", "''", "'1s,,2s'", "'1s,'"] {
        for key in ["bus.retry.delays", "retryDelays"] {
            let error = bus(&format!("{key} = {wrong}")).unwrap_err();
            assert!(error.starts_with(&format!("invalid {key}")), "{error}");
        }
    }
}

#[test]
fn a_preset_chooses_a_bus_as_well() {
    let development = BusConfig::load(Config::loader().vars([("FOREBAY_PRESET", "development")]));
    assert_eq!(development, Ok(BusConfig::development()));
    let production = BusConfig::load(Config::loader().preset(Preset::Production).toml("bus.workers = 3"));
    assert_eq!(production, Ok(BusConfig::production().with_workers(3)));
    let training = BusConfig::load(Config::loader().preset(Preset::Training)).unwrap();
    assert_eq!(
        (training.collector.capacity, training.collector.flush),
        (65_536, FlushStrategy::Size { events: 1 })
    );
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
        let bus = BusConfig::load(Config::loader().vars([(name, "1")])).unwrap();
        assert_eq!(bus.collector.ignored_variables, [name]);
        assert!(Collector::builder().config(bus.collector).build().is_ok());
    }
}

#[test]
fn settings_of_any_depth_are_an_error() {
    // A small stack, as threads of other libraries have it, and far more levels than any stack holds.
    let (stack, levels) = (512 << 10, 1_000_000);
    let body = move || {
        for key in ["capacity", "gate", "flush", "unknown"] {
            assert!(BusConfig::deserialize(Endless { levels, key: Some(key) }).is_err(), "{key}");
        }
    };
    std::thread::Builder::new().stack_size(stack).spawn(body).unwrap().join().unwrap();
}
