//! `CollectorLayer`: what tracing says, as records.

use std::fmt;
use std::time::Instant;

use forebay::bridge::{Bridge, Counts, Guard};
use forebay::collector::State;
use forebay::event::Text;
use forebay::{Collector, Fields, Name, Priority, Record, Value};
use tracing_core::span::{Attributes, Id};
use tracing_core::{Event, Interest, Level, Metadata, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::callsites::{self, Found, dotted};
use crate::fields::{LogTarget, Visitor};

/// 1 MiB.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// 4 KiB. The texts of a span are kept for as long as it is open, and no budget counts them there.
const MAX_SPAN_TEXT_BYTES: usize = 1 << 12;

/// Fields beside those of an event: its level, and the span that it is in.
const MORE_FIELDS: usize = 2;

/// Priorities by level, `ERROR` first.
pub(crate) const PRIORITIES: [Priority; 5] =
    [Priority::Critical, Priority::Normal, Priority::Normal, Priority::Low, Priority::Low];

/// Layer that makes a [`Record`] of every event, and hands it to a collector: what [`layer`](crate::layer) returns.
///
/// * The name of the record is the target, with `.` for `::`, and behind it the name of the event, if it was given one. Events of the
///   crate `log`, by way of `tracing-log`, keep the target that they had.
/// * Its value are the fields: `level`, those of the event, the `message` among them, and those of the spans around it. Where a name is
///   there twice, the event wins over a span, and a span over the one around it. `span` is the name of the innermost one.
/// * Numbers and truth values stay what they are; integers beyond 64 bits with a sign become texts with all digits. Bytes become
///   hexadecimal digits. An error is its `Display`, with its causes in a list `NAME.sources`. All else is its `Debug`.
/// * An integer `step`, of the event or of a span, becomes the [step](Record::step), and is no field.
/// * `ERROR` is [critical](Priority::Critical), `WARN` and `INFO` are normal, `DEBUG` and `TRACE` low: see [`priority`](Self::priority).
///   A critical record is never evicted. It waits for space at most as long as
///   [`critical_timeout`](forebay::Config::critical_timeout) says.
/// * The collector is asked first. Of an event that it would reject, no field is formatted; it counts the refusal. In a forked child,
///   that is every event.
///
/// What a filter, a `LevelFilter` or an `EnvFilter`, keeps out does not come here at all: add it by
/// [`with_filter`](Layer::with_filter). [`GateFilter`](crate::GateFilter) asks the gate of the collector there.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use forebay::{Collector, sink::MemorySink};
/// use tracing_subscriber::prelude::*;
///
/// let memory = MemorySink::new();
/// let (layer, guard) = forebay_tracing::layer(Collector::builder().sink(memory.clone()).start()?);
/// tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
///     let _epoch = tracing::info_span!("epoch", epoch = 3).entered();
///     tracing::info!(target: "train::loop", step = 7, loss = 0.5, "step done");
/// });
/// assert_eq!(guard.stop().lost(), 0);
///
/// let record = &memory.events()[0];
/// assert_eq!((record.name(), record.step()), ("train.loop", Some(7)));
/// let fields = record.value().as_fields().ok_or("no fields")?;
/// assert_eq!(fields.get("message").and_then(|text| text.as_str()), Some("step done"));
/// assert_eq!(fields.get("loss").and_then(|loss| loss.as_f64()), Some(0.5));
/// assert_eq!(fields.get("epoch").and_then(|epoch| epoch.as_i64()), Some(3));
/// # Ok(())
/// # }
/// ```
pub struct CollectorLayer {
    bridge: Bridge,
    /// Targets that are ignored, with all that is below them.
    ignored: Vec<String>,
    /// By level, `ERROR` first.
    priorities: [Priority; 5],
    has_level: bool,
    inherits: bool,
    has_durations: bool,
    max_text_bytes: usize,
}

impl CollectorLayer {
    pub(crate) fn new(collector: Collector) -> (Self, Guard) {
        let bridge = Bridge::new(collector);
        let guard = bridge.guard();
        let layer = Self {
            bridge,
            ignored: Vec::new(),
            priorities: PRIORITIES,
            has_level: true,
            inherits: true,
            has_durations: false,
            max_text_bytes: MAX_TEXT_BYTES,
        };
        (layer, guard)
    }

    /// Sets the priority of the records of a level.
    pub fn priority(mut self, level: Level, priority: Priority) -> Self {
        self.priorities[place_of(&level)] = priority;
        self
    }

    /// Makes a record of every span when it closes, named as an event is, with `.` and the name of the span behind the target. Its
    /// fields are those of the span and of those around it, and `duration`: the seconds from when it was made until it closed, by a
    /// clock that nobody can set. A span that has a field `duration` itself keeps that. Defaults to none.
    pub fn with_durations(mut self) -> Self {
        self.has_durations = true;
        self
    }

    /// Sets whether an event has the fields of the spans around it, and their `step`. Defaults to true.
    pub fn inherit_fields(mut self, inherits: bool) -> Self {
        self.inherits = inherits;
        self
    }

    /// Leaves the field `level` out. An event that has a field of that name itself keeps it, with the level or without.
    pub fn without_level(mut self) -> Self {
        self.has_level = false;
        self
    }

    /// Ignores events and spans of these targets and of the modules below them.
    ///
    /// What a sink logs on the threads that deliver is left out anyway. A sink that has threads of its own, as a client of HTTP may
    /// have, logs there as well, and every delivery would be followed by another one: name its crates here.
    pub fn ignore<T: Into<String>>(mut self, targets: impl IntoIterator<Item = T>) -> Self {
        self.ignored.extend(targets.into_iter().map(Into::into));
        self
    }

    /// Sets how many bytes a text may have. A longer one is cut, ends with `…`, and is counted. Defaults to 1 MiB.
    ///
    /// A text of a span has 4 KiB at most. It is kept for as long as the span is open, in no budget. Every event in the span shares it,
    /// and counts it in full in the [byte budget](forebay::Config::max_bytes) of the collector.
    pub fn max_text_bytes(mut self, bytes: usize) -> Self {
        self.max_text_bytes = bytes;
        self
    }

    /// Returns what the layer kept away or changed so far. The [guard](Guard) has it as well.
    pub fn counts(&self) -> Counts {
        self.bridge.counts()
    }

    fn visitor<'a>(&'a self, capacity: usize, callsite: Option<&'a Found>) -> Visitor<'a> {
        Visitor {
            fields: Fields::with_capacity(capacity),
            step: None,
            is_of_log: callsite.is_some_and(|callsite| callsite.is_of_log),
            callsite,
            max_text_bytes: self.max_text_bytes,
            bridge: &self.bridge,
        }
    }

    fn span_visitor(&self, capacity: usize) -> Visitor<'_> {
        let max_text_bytes = self.max_text_bytes.min(MAX_SPAN_TEXT_BYTES);
        Visitor { max_text_bytes, ..self.visitor(capacity, None) }
    }

    /// Returns whether the fields of spans are wanted: also before the start and while the collector is stopped, because an event in the
    /// span may come after a start.
    fn wants_spans(&self) -> bool {
        (self.inherits || self.has_durations)
            && !matches!(self.bridge.collector().state(), State::Forked | State::WorkerGone)
    }

    /// Returns whether a target is one of those that are ignored.
    fn ignores(&self, target: &str) -> bool {
        !self.ignored.is_empty() && is_within(target, &self.ignored)
    }

    fn priority_of(&self, metadata: &Metadata<'_>) -> Priority {
        self.priorities[place_of(metadata.level())]
    }

    /// Makes the record of an event or of a span that closes, if the collector wants it.
    fn collect(
        &self,
        metadata: &'static Metadata<'static>,
        callsite: &Found,
        name: Name,
        record_own: impl FnOnce(&mut Visitor<'_>),
        scope: impl FnOnce(&mut Visitor<'_>),
    ) {
        let priority = self.priority_of(metadata);
        let shown = name.clone();
        self.bridge.collector().collect_with(&shown, priority, || {
            let mut visitor = self.visitor(metadata.fields().len() + MORE_FIELDS, Some(callsite));
            if self.has_level {
                visitor.fields.set("level", level_text(metadata.level()));
            }
            record_own(&mut visitor);
            scope(&mut visitor);
            let Visitor { fields, step, .. } = visitor;
            let record = Record::fields(name, fields).with_priority(priority);
            match step {
                Some(step) => record.with_signed_step(step),
                None => record,
            }
        });
    }
}

/// What is kept of a span.
struct SpanFields {
    name: Text,
    fields: Fields,
    step: Option<i64>,
    begun: Instant,
}

impl SpanFields {
    /// Adds to the fields of an event what it does not have itself.
    fn inherit(&self, visitor: &mut Visitor<'_>) {
        for (name, value) in self.fields.iter() {
            if visitor.fields.get(name).is_none() {
                visitor.fields.set(name.clone(), value.clone());
            }
        }
        visitor.step = visitor.step.or(self.step);
    }
}

/// Adds the fields of spans, the innermost first.
fn inherit_all<'a, S: Subscriber + LookupSpan<'a>>(
    spans: impl Iterator<Item = SpanRef<'a, S>>,
    visitor: &mut Visitor<'_>,
) {
    let mut is_innermost = true;
    for span in spans {
        // No user code runs while this lock of the registry is held: values are cloned, and none is formatted.
        let extensions = span.extensions();
        let Some(data) = extensions.get::<SpanFields>() else { continue };
        if std::mem::take(&mut is_innermost) && visitor.fields.get("span").is_none() {
            visitor.fields.set("span", data.name.clone());
        }
        data.inherit(visitor);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for CollectorLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Before the first event, that it finds its name.
        _ = callsites::of(metadata);
        // The gate may change at any time, and `never` would keep the event from other layers as well.
        Interest::always()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !self.wants_spans() {
            return;
        }
        let metadata = attributes.metadata();
        if self.ignores(metadata.target()) {
            return;
        }
        let Some(_entered) = self.bridge.enter_uncounted() else { return };
        let Some(span) = context.span(id) else { return };
        if span.extensions().get::<SpanFields>().is_some() {
            // Another layer of ours has noted them.
            return;
        }
        // Formatted before the lock is taken: a `Debug` may log, and would wait for it.
        let mut visitor = self.span_visitor(metadata.fields().len());
        attributes.record(&mut visitor);
        let data = SpanFields {
            name: Text::from(metadata.name()).into_shared(),
            fields: shared(visitor.fields),
            step: visitor.step,
            begun: Instant::now(),
        };
        let mut extensions = span.extensions_mut();
        if extensions.get_mut::<SpanFields>().is_none() {
            extensions.insert(data);
        }
    }

    fn on_record(&self, id: &Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if !self.wants_spans() {
            return;
        }
        let Some(_entered) = self.bridge.enter_uncounted() else { return };
        let Some(span) = context.span(id) else { return };
        let mut visitor = self.span_visitor(0);
        values.record(&mut visitor);
        let (fields, step) = (shared(visitor.fields), visitor.step);
        let mut extensions = span.extensions_mut();
        if let Some(data) = extensions.get_mut::<SpanFields>() {
            fields.iter().for_each(|(name, value)| data.fields.set(name.clone(), value.clone()));
            data.step = step.or(data.step);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let callsite = callsites::of(metadata);
        let of_log = if callsite.is_of_log { LogTarget::of(event) } else { None };
        if self.ignores(of_log.as_deref().unwrap_or(metadata.target())) {
            self.bridge.count_ignored();
            return;
        }
        let name = of_log.map_or_else(|| callsite.name.clone(), |target| Name::from(dotted(&target)));
        let Some(_entered) = self.bridge.enter_as(&name, self.priority_of(metadata)) else { return };
        let scope = |visitor: &mut Visitor<'_>| {
            if self.inherits
                && let Some(scope) = context.event_scope(event)
            {
                inherit_all(scope, visitor);
            }
        };
        self.collect(metadata, &callsite, name, |visitor| event.record(visitor), scope);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if !self.has_durations || self.bridge.collector().state() == State::Forked {
            return;
        }
        let Some(span) = context.span(&id) else { return };
        let metadata = span.metadata();
        if self.ignores(metadata.target()) {
            self.bridge.count_ignored();
            return;
        }
        let duration = span.extensions().get::<SpanFields>().map(|data| data.begun.elapsed());
        // It was made before the layer came, or on a thread that delivers.
        let Some(duration) = duration else { return };
        let callsite = callsites::of(metadata);
        let entered = self.bridge.enter_as(&callsite.name, self.priority_of(metadata));
        let Some(_entered) = entered else { return };
        let own = |visitor: &mut Visitor<'_>| {
            if let Some(data) = span.extensions().get::<SpanFields>() {
                data.inherit(visitor);
            }
            if visitor.fields.get("duration").is_none() {
                visitor.fields.set("duration", Value::from(duration));
            }
        };
        let scope = |visitor: &mut Visitor<'_>| {
            if self.inherits {
                span.scope().skip(1).for_each(|around| {
                    if let Some(data) = around.extensions().get::<SpanFields>() {
                        data.inherit(visitor);
                    }
                });
            }
        };
        self.collect(metadata, &callsite, callsite.name.clone(), own, scope);
    }
}

impl fmt::Debug for CollectorLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorLayer").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// Returns fields whose texts are shared, because every event in the span gets them.
fn shared(fields: Fields) -> Fields {
    let mut all = Fields::with_capacity(fields.len());
    for (name, value) in fields.iter() {
        let value = match value.clone() {
            Value::Text(text) => Value::Text(text.into_shared()),
            other => other,
        };
        all.set(name.clone(), value);
    }
    all
}

/// Returns whether a target is one of these, or below one of them.
fn is_within(target: &str, ignored: &[String]) -> bool {
    ignored.iter().any(|ignored| {
        target.strip_prefix(ignored.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

pub(crate) fn place_of(level: &Level) -> usize {
    match *level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

fn level_text(level: &Level) -> Text {
    match *level {
        Level::ERROR => Text::from_static(&"ERROR"),
        Level::WARN => Text::from_static(&"WARN"),
        Level::INFO => Text::from_static(&"INFO"),
        Level::DEBUG => Text::from_static(&"DEBUG"),
        Level::TRACE => Text::from_static(&"TRACE"),
    }
}
