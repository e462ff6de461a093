//! Helpers that the tests share: events, a sink that waits at a gate, and the law.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of any #[test]")]

use std::sync::{Arc, Condvar, Mutex};
use std::task::{RawWaker, RawWakerVTable, Wake, Waker};
use std::time::{Duration, Instant};

use forebay::sink::{MemorySink, Sink, SinkError, from_fn};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Priority, Stats, collector::State};

/// Far more than anything here takes. A test that needs it has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// Less than the park after which a worker looks around by itself: what happens within it happened because
/// somebody rang.
pub const SOON: Duration = Duration::from_secs(5);

/// An event that says who collected it, as which of theirs, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    pub producer: u32,
    pub number: u64,
    pub priority: Priority,
}

impl Event for Tick {
    fn name(&self) -> &str {
        "tick"
    }

    fn priority(&self) -> Priority {
        self.priority
    }
}

/// Begins a collector of ticks.
pub fn ticks() -> Builder<Tick> {
    Builder::new()
}

pub fn tick(number: u64) -> Tick {
    Tick { producer: 0, number, priority: Priority::Normal }
}

pub fn critical(number: u64) -> Tick {
    Tick { priority: Priority::Critical, ..tick(number) }
}

pub fn low(number: u64) -> Tick {
    Tick { priority: Priority::Low, ..tick(number) }
}

pub fn numbers(events: &[Tick]) -> Vec<u64> {
    events.iter().map(|event| event.number).collect()
}

/// Strategy that delivers nothing by itself before an hour has passed.
pub const HOURLY: FlushStrategy = FlushStrategy::Time { interval: Duration::from_secs(3600) };

/// Checks the law, and that nothing is left, for a collector that was flushed or stopped.
#[track_caller]
pub fn law<E: Event>(collector: &Collector<E>, offered: u64) -> Stats {
    let stats = collector.stats();
    if let Err(broken) = stats.check_law(offered) {
        panic!("{broken}");
    }
    stats
}

/// Checks the headers of all batches a sink has seen: numbered without a hole, events numbered without a
/// hole but for the gaps. Returns the sum of the gaps.
#[track_caller]
pub fn audit<E>(memory: &MemorySink<E>) -> u64 {
    let mut next_event = 0;
    let mut gaps = 0;
    for (number, batch) in memory.batches().iter().enumerate() {
        assert_eq!(batch.number(), number as u64);
        assert_eq!(batch.first_event(), next_event + batch.gap());
        assert!(!batch.is_empty() || batch.gap() > 0, "an empty batch without a gap");
        next_event = batch.first_event() + batch.len() as u64;
        gaps += batch.gap();
    }
    gaps
}

/// Raises a flag when it is dropped, so that the threads of a scope end although an assertion failed.
pub struct Raise<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Waits a moment before a loop looks again for the end of a process. It does not yield: where many threads did nothing
/// else, a busy machine (Linux 6.18) ran no other thread for minutes, not even its own, and tests timed out. Threads that are busy
/// on purpose come here now and then, for the same reason.
pub fn look_again() {
    std::thread::sleep(Duration::from_micros(50));
}

/// Yields until something holds.
#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    until_timeout(LONG, what, holds);
}

/// Waits as [`until`] does, with less patience, where a failure is repeated many times.
#[track_caller]
pub fn until_timeout(longest: Duration, what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < longest, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// Waits until the worker has seen everything that was done so far, and sleeps.
#[track_caller]
pub fn until_asleep<E: Event>(collector: &Collector<E>) {
    until("the worker sleeps", || collector.state() == State::Asleep);
}

/// Delivers everything that is pending, also beside a sink that hangs. A flush that gives up takes its request back: it
/// is asked again until the worker has come to it.
#[track_caller]
pub fn until_delivered<E: Event>(collector: &Collector<E>) {
    until("all is delivered", || {
        let _ = collector.flush_timeout(Duration::from_millis(1));
        collector.pending() == 0
    });
}

/// Returns a waker that calls a function whenever it is cloned, and wakes nobody.
#[allow(unsafe_code, reason = "only a table of functions notices a clone")]
pub fn waker_on_clone(call: impl Fn() + Send + Sync + 'static) -> Waker {
    type Call = Box<dyn Fn() + Send + Sync>;
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, drop, |_| (), drop);
    fn clone(call: *const ()) -> RawWaker {
        // SAFETY: it comes from `Arc::into_raw`, and the waker that is cloned holds it.
        let held = unsafe {
            Arc::increment_strong_count(call.cast::<Call>());
            &*call.cast::<Call>()
        };
        held();
        RawWaker::new(call, &TABLE)
    }
    fn drop(call: *const ()) {
        // SAFETY: as above.
        unsafe { Arc::decrement_strong_count(call.cast::<Call>()) }
    }
    let call: Arc<Call> = Arc::new(Box::new(call));
    // SAFETY: the functions of the table count the references, and any thread may call the function.
    unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(call).cast(), &TABLE)) }
}

/// Returns a waker that calls a function when the last of its clones is dropped, and wakes nobody.
pub fn waker_on_drop(call: impl Fn() + Send + Sync + 'static) -> Waker {
    struct OnDrop<F: Fn()>(F);

    impl<F: Fn() + Send + Sync + 'static> Wake for OnDrop<F> {
        fn wake(self: Arc<Self>) {
            std::mem::forget(self);
        }
    }

    impl<F: Fn()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    Arc::new(OnDrop(call)).into()
}

/// A process that does not outlive the test that started it.
pub struct Killed(pub std::process::Child);

impl Killed {
    /// Waits for its end; its code, if it has one.
    #[track_caller]
    pub fn code(mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < LONG, "the process does not end");
            look_again();
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says that a test cannot run here, and why, in one line that the harness does not hold back. Where `FOREBAY_NO_SKIPS` is set,
/// as CI sets it, the test fails instead.
#[track_caller]
pub fn skipped(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("FOREBAY_NO_SKIPS").is_none(), "a test cannot run here: {why}");
    // Not `eprintln!`, which is held back where a test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Keeps a process that was started with a pipe as its input idle, until it is killed, or the test is gone.
pub fn stay() {
    _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// A gate in front of a sink. The worker that comes to it waits while it is closed.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    is_open: bool,
    arrivals: u64,
}

impl Gate {
    pub fn closed() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().is_open = true;
        self.0.1.notify_all();
    }

    pub fn close(&self) {
        self.0.0.lock().unwrap().is_open = false;
    }

    /// Waits until the worker has come to the gate `arrivals` times.
    #[track_caller]
    pub fn await_arrivals(&self, arrivals: u64) {
        let state = self.0.0.lock().unwrap();
        let late = |state: &mut GateState| state.arrivals < arrivals;
        let (state, timeout) = self.0.1.wait_timeout_while(state, LONG, late).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "the worker never came to the gate");
    }

    pub fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.arrivals += 1;
        self.0.1.notify_all();
        drop(self.0.1.wait_while(state, |state| !state.is_open).unwrap());
    }

    /// Returns a sink behind this gate.
    pub fn sink<E: Event>(&self) -> impl Sink<E> + 'static {
        let gate = self.clone();
        from_fn("gate", move |_: &Batch<E>| {
            gate.pass();
            Ok(())
        })
    }
}

/// Returns a collector whose worker stands at a closed gate, in a batch of one event. Its rings are empty.
#[track_caller]
pub fn stalled(builder: Builder<Tick>, gate: &Gate) -> Collector<Tick> {
    let collector = builder.flush(FlushStrategy::Size { events: 1 }).sink(gate.sink()).start().unwrap();
    collector.collect(tick(u64::MAX));
    gate.await_arrivals(1);
    collector
}

/// Returns a sink that always fails.
pub fn failing<E>(name: &str) -> impl Sink<E> + 'static {
    from_fn(name, |_: &Batch<E>| Err(SinkError::unavailable("nobody is there")))
}

/// Returns a sink that always panics.
pub fn panicking<E>(name: &str) -> impl Sink<E> + 'static {
    from_fn(name, |_: &Batch<E>| panic!("on purpose"))
}

/// Keeps panics that a test throws itself off the screen.
pub fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>() != Some(&"on purpose") {
                tell(panic);
            }
        }));
    });
}

/// The name by which the harness knows a test of this program, for `--exact`: `name_of!(a_test)`.
#[allow(unused_macros, reason = "not every program has such tests")]
macro_rules! name_of {
    ($test:ident) => {
        $crate::support::name_in_harness(&$test)
    };
}

/// Runs a test in a process of its own: the first statement of a test that changes, or counts, what is the whole process's.
#[allow(unused_macros, reason = "not every program has such tests")]
macro_rules! alone {
    () => {
        fn here() {}
        if !$crate::support::is_alone(&here) {
            return;
        }
    };
}

#[allow(unused_imports, reason = "not every program has such tests")]
pub(crate) use {alone, name_of};

/// Returns the path of a function, without the name of the program.
pub fn name_in_harness<F>(_: &F) -> &'static str {
    std::any::type_name::<F>().split_once("::").unwrap().1
}

/// Returns whether this process runs nothing but the test in which `here` stands. If not, such a process has done so
/// when this returns.
#[track_caller]
pub fn is_alone<F>(here: &F) -> bool {
    const ALONE: &str = "FOREBAY_TEST_ALONE";
    let (test, _) = name_in_harness(here).rsplit_once("::").unwrap();
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, failed) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}{failed}", output.status);
    failed.lines().filter_map(|line| line.strip_prefix("skipped: ")).for_each(skipped);
    false
}

/// Breaks of lines, the escape of terminals, a C1 control that is one as well, and everything that turns text around.
pub const EVIL: &str = "\n\r\t\u{0}\u{7}\u{8}\u{1b}[2J\u{7f}\u{85}\u{9b}31m\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\
                    \u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}end";

/// Fails unless the text is `lines` lines in which every such character is escaped.
#[track_caller]
pub fn is_harmless(text: &str, lines: usize) {
    let is_evil = |c: char| c != '\n' && EVIL.contains(c) && !"[2J31mend".contains(c);
    assert!(!text.contains(is_evil), "{text:?}");
    assert_eq!(text.trim_end_matches('\n').split('\n').count(), lines, "{text:?}");
    for shown in ["\\u{202e}", "\\u{2066}", "\\u{61c}", "\\u{200f}", "\\u{1b}", "\\u{9b}", "\\u{2029}", "\\n"]
    {
        assert!(text.contains(shown), "{shown} in {text:?}");
    }
}
