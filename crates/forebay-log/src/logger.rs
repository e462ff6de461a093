//! `Logger`: what the crate log says, as records.

use std::fmt;
use std::time::Duration;

use env_filter::Filter;
use forebay::bridge::{Bridge, Counts, Guard};
use forebay::event::Text;
use forebay::{Collector, Fields, Priority, Record};
use log::{Level, LevelFilter, Log, Metadata, SetLoggerError};

use crate::names;

/// 1 MiB.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Logger that makes a [`Record`] of every line, and hands it to a collector.
///
/// * The name of the record is the target, with `.` for `::`.
/// * Its value are fields: `level`, `message`, and the key-values of the line (feature `kv`, on by default). A key-value named `level`
///   or `message` takes their place. Numbers and truth values stay what they are; integers beyond 64 bits with a sign become texts with
///   all digits. An error is its `Display`, with its causes in a list `NAME.sources`. All else is its text.
/// * An integer `step` becomes the [step](Record::step), and is no field.
/// * `Error` is [critical](Priority::Critical), `Warn` and `Info` are normal, `Debug` and `Trace` low: see [`priority`](Self::priority).
///   A critical record is never evicted. It waits for space at most as long as
///   [`critical_timeout`](forebay::Config::critical_timeout) says.
/// * The filter is asked first, then the collector. Of a line that either would keep out, nothing is formatted. The collector counts its
///   refusal; in a forked child, that is every line.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use forebay::{Collector, sink::MemorySink};
/// use forebay_log::Logger;
///
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// let guard = Logger::new(collector).env("RUST_LOG")?.install()?; // info and above, unless RUST_LOG says otherwise
/// log::info!(target: "train::loop", step = 7, loss = 0.5; "step done");
/// assert_eq!(guard.stop().lost(), 0);
///
/// let record = &memory.events()[0];
/// assert_eq!((record.name(), record.step()), ("train.loop", Some(7)));
/// assert_eq!(record.value().as_fields().and_then(|fields| fields.get("loss")?.as_f64()), Some(0.5));
/// # Ok(())
/// # }
/// ```
pub struct Logger {
    bridge: Bridge,
    filter: Filter,
    /// By level, `Error` first.
    priorities: [Priority; 5],
    /// Targets that are ignored, with all that is below them.
    ignored: Vec<String>,
    max_text_bytes: usize,
    flush_timeout: Duration,
}

/// Error of a filter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterError {
    /// The variable of the environment that it stands in, if any.
    pub variable: Option<String>,
    /// The filter.
    pub filter: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, filter, message } = self;
        let what = variable.as_deref().unwrap_or("the filter");
        write!(f, "{what} must be levels by target, as `info,train=debug`, got {filter:?}: {message}")
    }
}

impl std::error::Error for FilterError {}

impl Logger {
    /// Makes a logger that takes `Info` and above.
    pub fn new(collector: Collector) -> Self {
        let flush_timeout = collector.config().flush_timeout;
        Self {
            bridge: Bridge::new(collector),
            filter: env_filter::Builder::new().filter_level(LevelFilter::Info).build(),
            priorities: [
                Priority::Critical,
                Priority::Normal,
                Priority::Normal,
                Priority::Low,
                Priority::Low,
            ],
            ignored: Vec::new(),
            max_text_bytes: MAX_TEXT_BYTES,
            flush_timeout,
        }
    }

    /// Takes what a filter says, in the place of `Info` and above: `warn,train=debug`, as env_logger has it. Its `/TEXT`, a filter by the
    /// text of lines, is refused: every line would be formatted for it, before anything bounds it.
    ///
    /// # Errors
    ///
    /// The filter cannot be read, or has a `/`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let logger = forebay_log::Logger::new(forebay::Collector::builder().start()?);
    /// let error = logger.filter("train=loud").unwrap_err();
    /// assert!(error.to_string().starts_with(
    ///     r#"the filter must be levels by target, as `info,train=debug`, got "train=loud": "#
    /// ));
    /// # Ok(())
    /// # }
    /// ```
    pub fn filter(mut self, filter: &str) -> Result<Self, FilterError> {
        let refused = |message: String| FilterError { variable: None, filter: filter.to_owned(), message };
        if filter.contains('/') {
            return Err(refused("it has a `/`, and lines are not filtered by their text".to_owned()));
        }
        let mut builder = env_filter::Builder::new();
        let parsed = builder.try_parse(filter).map(|builder| builder.build());
        self.filter = parsed.map_err(|error| refused(error.to_string()))?;
        Ok(self)
    }

    /// Takes what the filter in a variable of the environment says, such as `RUST_LOG`. Without that variable, or an empty one, the
    /// logger stays as it is.
    ///
    /// # Errors
    ///
    /// As for [`filter`](Self::filter).
    pub fn env(self, variable: &str) -> Result<Self, FilterError> {
        let Some(filter) = std::env::var_os(variable).filter(|filter| !filter.is_empty()) else {
            return Ok(self);
        };
        let read = match filter.to_str() {
            Some(filter) => self.filter(filter),
            None => Err(FilterError {
                variable: None,
                filter: filter.to_string_lossy().into_owned(),
                message: "it is not UTF-8".to_owned(),
            }),
        };
        read.map_err(|error| FilterError { variable: Some(variable.to_owned()), ..error })
    }

    /// Sets the priority of the records of a level.
    pub fn priority(mut self, level: Level, priority: Priority) -> Self {
        self.priorities[place_of(level)] = priority;
        self
    }

    /// Ignores lines of these targets and of the modules below them.
    ///
    /// What a sink logs on the threads that deliver is left out anyway. A sink that has threads of its own, as a client of HTTP may
    /// have, logs there as well, and every delivery would be followed by another one: name its crates here.
    pub fn ignore<T: Into<String>>(mut self, targets: impl IntoIterator<Item = T>) -> Self {
        self.ignored.extend(targets.into_iter().map(Into::into));
        self
    }

    /// Sets how many bytes a text may have. A longer one is cut, ends with `…`, and is counted. Defaults to 1 MiB.
    pub fn max_text_bytes(mut self, bytes: usize) -> Self {
        self.max_text_bytes = bytes;
        self
    }

    /// Sets how long [`Log::flush`] may take, which has no deadline of its own. Defaults to
    /// [`Config::flush_timeout`](forebay::Config::flush_timeout) of the collector.
    pub fn flush_timeout(mut self, timeout: Duration) -> Self {
        self.flush_timeout = timeout;
        self
    }

    /// Makes a guard that stops the collector, for a logger that is installed by other means.
    pub fn guard(&self) -> Guard {
        self.bridge.guard()
    }

    /// Returns what the logger kept away or changed so far. A [guard](Guard) has it as well.
    pub fn counts(&self) -> Counts {
        self.bridge.counts()
    }

    /// Returns the most verbose level that it takes.
    pub fn max_level(&self) -> LevelFilter {
        self.filter.filter()
    }

    /// Makes it the logger of the program, and returns the guard that stops its collector.
    ///
    /// # Errors
    ///
    /// The program has a logger already.
    pub fn install(self) -> Result<Guard, SetLoggerError> {
        let (bridge, level) = (self.bridge.clone(), self.max_level());
        log::set_boxed_logger(Box::new(self))?;
        log::set_max_level(level);
        // Not before: dropped with an error, it would stop the collector.
        Ok(bridge.guard())
    }

    fn message(&self, arguments: fmt::Arguments<'_>) -> Text {
        let literal = arguments.as_str().and_then(names::of_message);
        literal.map_or_else(|| self.bridge.text(self.max_text_bytes, arguments), Text::from_static)
    }

    fn is_ignored(&self, target: &str) -> bool {
        self.ignored.iter().any(|ignored| {
            target
                .strip_prefix(ignored.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let priority = self.priorities[place_of(metadata.level())];
        self.filter.enabled(metadata)
            && !self.is_ignored(metadata.target())
            && self.bridge.collector().accepts(&names::of_target(metadata.target()), priority)
    }

    fn log(&self, line: &log::Record<'_>) {
        // Not `matches`, which formats the line for a filter of its text.
        if !self.filter.enabled(line.metadata()) {
            return;
        }
        if self.is_ignored(line.target()) {
            self.bridge.count_ignored();
            return;
        }
        let priority = self.priorities[place_of(line.level())];
        let name = names::of_target(line.target());
        let Some(_entered) = self.bridge.enter_as(&name, priority) else { return };
        let shown = name.clone();
        self.bridge.collector().collect_with(&shown, priority, || {
            let mut fields = Fields::with_capacity(4);
            fields.set("level", level_text(line.level()));
            fields.set("message", self.message(*line.args()));
            let step = self.add_pairs(line, &mut fields);
            let record = Record::fields(name, fields).with_priority(priority);
            match step {
                Some(step) => record.with_signed_step(step),
                None => record,
            }
        });
    }

    /// Waits until everything that was logged before is delivered, or for at most [`Logger::flush_timeout`].
    fn flush(&self) {
        // The statistics of the collector say how it went.
        _ = self.bridge.collector().flush_timeout(self.flush_timeout);
    }
}

#[cfg(not(feature = "kv"))]
impl Logger {
    fn add_pairs(&self, _: &log::Record<'_>, _: &mut Fields) -> Option<i64> {
        None
    }
}

#[cfg(feature = "kv")]
mod pairs {
    use std::error::Error;
    use std::fmt;

    use forebay::event::{List, Text};
    use forebay::{Fields, Name, Value};
    use log::kv::{self, Key, VisitSource, VisitValue};

    use super::{Logger, names};

    impl Logger {
        /// Adds the key-values of a line, and returns its step.
        pub(super) fn add_pairs(&self, line: &log::Record<'_>, fields: &mut Fields) -> Option<i64> {
            let mut pairs = Pairs { logger: self, fields, step: None };
            // No pair fails here, but their source may: it is code of the user.
            let broken = match self.bridge.catch(|| line.key_values().visit(&mut pairs)) {
                Ok(Ok(())) => None,
                Ok(Err(error)) => {
                    self.bridge.count_failed();
                    Some(self.bridge.text(self.max_text_bytes, format_args!("{error} (failed)")))
                }
                Err(panicked) => Some(panicked),
            };
            let step = pairs.step;
            if let Some(broken) = broken {
                fields.set("key_values", broken);
            }
            step
        }
    }

    struct Pairs<'a> {
        logger: &'a Logger,
        fields: &'a mut Fields,
        step: Option<i64>,
    }

    impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
            let mut pair = Pair { logger: self.logger, value: Value::Empty, sources: None };
            value.visit(&mut pair)?;
            let Pair { value, sources, .. } = pair;
            if let (Value::Integer(step), "step") = (&value, key.as_str()) {
                self.step = Some(*step);
                return Ok(());
            }
            self.fields.set(names::of_key(key.as_str()), value);
            if let Some(sources) = sources {
                self.fields.set(Name::from(format!("{key}.sources")), sources);
            }
            Ok(())
        }
    }

    struct Pair<'a> {
        logger: &'a Logger,
        value: Value,
        sources: Option<List>,
    }

    impl Pair<'_> {
        fn text(&self, arguments: fmt::Arguments<'_>) -> Text {
            self.logger.bridge.text(self.logger.max_text_bytes, arguments)
        }

        fn set(&mut self, value: impl Into<Value>) -> Result<(), kv::Error> {
            self.value = value.into();
            Ok(())
        }

        /// Sets a whole number; one that does not fit, with all of its digits.
        fn set_wide(&mut self, number: Option<i64>, digits: impl fmt::Display) -> Result<(), kv::Error> {
            match number {
                Some(number) => self.set(number),
                None => self.set_text(digits),
            }
        }

        fn set_text(&mut self, text: impl fmt::Display) -> Result<(), kv::Error> {
            let text = self.text(format_args!("{text}"));
            self.set(text)
        }
    }

    impl VisitValue<'_> for Pair<'_> {
        fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
            self.set_text(value)
        }

        fn visit_null(&mut self) -> Result<(), kv::Error> {
            self.set(())
        }

        fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
            self.set_wide(i64::try_from(value).ok(), value)
        }

        fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
            self.set(value)
        }

        fn visit_u128(&mut self, value: u128) -> Result<(), kv::Error> {
            self.set_wide(i64::try_from(value).ok(), value)
        }

        fn visit_i128(&mut self, value: i128) -> Result<(), kv::Error> {
            self.set_wide(i64::try_from(value).ok(), value)
        }

        fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
            self.set(value)
        }

        fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
            self.set(value)
        }

        fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
            self.set_text(value)
        }

        fn visit_char(&mut self, value: char) -> Result<(), kv::Error> {
            self.set_text(value)
        }

        fn visit_error(&mut self, error: &(dyn Error + 'static)) -> Result<(), kv::Error> {
            let causes = self.logger.bridge.causes(self.logger.max_text_bytes, error);
            self.sources = Some(causes).filter(|causes| !causes.is_empty());
            self.set_text(error)
        }

        fn visit_borrowed_error(&mut self, error: &(dyn Error + 'static)) -> Result<(), kv::Error> {
            self.visit_error(error)
        }
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").field("filter", &self.filter).finish_non_exhaustive()
    }
}

fn place_of(level: Level) -> usize {
    level as usize - Level::Error as usize
}

fn level_text(level: Level) -> Text {
    match level {
        Level::Error => Text::from_static(&"ERROR"),
        Level::Warn => Text::from_static(&"WARN"),
        Level::Info => Text::from_static(&"INFO"),
        Level::Debug => Text::from_static(&"DEBUG"),
        Level::Trace => Text::from_static(&"TRACE"),
    }
}
