//! P1: `collect` makes no system call but the one that wakes a sleeping worker. The kernel itself watches: a thread
//! with a seccomp filter that allows nothing is killed when it asks for anything.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;
use forebay::config::Lanes;
use forebay::{Collector, FlushStrategy, Outcome, Overflow, Record};

/// Set in the process in which a thread gives up its right to system calls.
const WATCHED: &str = "FOREBAY_TEST_WATCHED";

const EACH: u64 = 100_000;

const NO_SECCOMP: i32 = 77;
const WAS_KILLED: i32 = 78;
const WRONG_OUTCOME: i32 = 79;

/// Says whether it is so from now on, for the calling thread. (The strict mode of seccomp, which needs no filter, also
/// forbids reading the time-stamp counter.)
#[allow(unsafe_code, reason = "libc")]
fn give_up_system_calls() -> bool {
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut kill = libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_THREAD };
    let program = libc::sock_fprog { len: 1, filter: &raw mut kill };
    // SAFETY: the program lives until the kernel has copied it; it changes what this thread may ask the kernel for.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

#[allow(unsafe_code, reason = "libc")]
fn thread_id() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Runs `begin` and `collect` on a thread that `collect` finds without a right to system calls, and ends the process; both say
/// whether all outcomes were right.
fn watch(
    calibrate: impl Fn() -> bool + Sync,
    begin: impl Fn() + Sync,
    collect: impl Fn() -> bool + Sync,
) -> ! {
    let (stage, ended, thread) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The clock is calibrated, the thread has its number.
            let is_right = calibrate();
            thread.store(thread_id() as u64, Ordering::SeqCst);
            stage.store(1, Ordering::SeqCst);
            while stage.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
            begin();
            if !give_up_system_calls() {
                std::process::exit(NO_SECCOMP);
            }
            let is_right = collect() && is_right;
            ended.store(if is_right { 1 } else { 2 }, Ordering::SeqCst);
            // It may not even end as threads do.
            loop {
                std::hint::spin_loop();
            }
        });
        until("the thread is ready", || stage.load(Ordering::SeqCst) == 1);
        let task = format!("/proc/self/task/{}", thread.load(Ordering::SeqCst));
        let is_alive = || std::path::Path::new(&task).exists();
        assert!(is_alive());
        stage.store(2, Ordering::SeqCst);
        until("it has collected, or was killed", || ended.load(Ordering::SeqCst) > 0 || !is_alive());
        std::process::exit(match ended.load(Ordering::SeqCst) {
            0 => WAS_KILLED,
            1 => 0,
            _ => WRONG_OUTCOME,
        });
    })
}

/// Runs a test of this program in a process of its own, and returns how that ended; `None` where there is no seccomp.
fn watched(test: &str) -> Option<i32> {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(WATCHED, "1")
        .spawn()
        .unwrap();
    let code = Killed(child).code();
    if code == Some(NO_SECCOMP) {
        skipped("this system has no seccomp");
        return None;
    }
    // A signal has no code.
    Some(code.unwrap_or(-1))
}

/// Runs only in the watched process.
#[test]
fn collects_without_a_right_to_system_calls() {
    if std::env::var_os(WATCHED).is_none() {
        return;
    }
    let gate = Gate::closed();
    let overflowing = stalled(ticks().capacity(100), &gate);
    let other_gate = Gate::closed();
    let split = stalled(ticks().capacity(100).shards(4), &other_gate);
    let last_gate = Gate::closed();
    let refusing = stalled(ticks().capacity(100).overflow(Overflow::DropNewest), &last_gate);
    let lanes_gate = Gate::closed();
    let in_lanes = stalled(ticks().capacity(100).lanes(Lanes::PerThread { max: 2 }), &lanes_gate);
    // Asleep, and not called before half of the lane is full.
    let interval = Duration::from_secs(3600);
    let flush = FlushStrategy::Time { interval };
    let asleep = Collector::builder().capacity(4 * EACH as usize).flush(flush).start().unwrap();
    // The first event starts the timer.
    asleep.collect(Record::scalar("first", 0.0));
    let _ = asleep.flush().unwrap();
    until("the worker sleeps", || asleep.state() == forebay::collector::State::Asleep);
    let stopped = ticks().start().unwrap();
    stopped.stop().unwrap();

    let collect_all = |count: u64| {
        let all_are = |outcome, collect: &dyn Fn(u64) -> Outcome| {
            // What is not queued at the first calls may be so until the ring is full.
            (0..count).map(collect).skip(200).all(|was| was == outcome)
        };
        all_are(Outcome::QueuedEvicting, &|n| overflowing.collect(tick(n)))
            & all_are(Outcome::QueuedEvicting, &|n| split.collect(tick(n)))
            & (0..count).all(|n| in_lanes.collect(tick(n)).is_queued())
            & all_are(Outcome::Full, &|n| refusing.collect(tick(n)))
            & all_are(Outcome::Queued, &|n| asleep.collect(Record::scalar("train.loss", 0.5).with_step(n)))
            & all_are(Outcome::Stopped, &|n| stopped.collect(tick(n)))
    };
    watch(|| collect_all(300), || (), || collect_all(EACH));
}

#[test]
fn collect_makes_no_system_call() {
    if let Some(code) = watched(name_of!(collects_without_a_right_to_system_calls)) {
        assert_eq!(code, 0, "{WAS_KILLED}: collect made a system call");
    }
}

/// Runs only in the watched process.
#[test]
fn collects_at_a_steady_rate_without_a_right_to_system_calls() {
    if std::env::var_os(WATCHED).is_none() {
        return;
    }
    // A batch is full a hundred times, half of a lane never.
    let lanes = ticks().capacity(1 << 20).low_capacity(1 << 20);
    let collector = lanes.flush(FlushStrategy::Size { events: 100 }).start().unwrap();
    let collect_all = |count: u64| {
        (0..count / 10).all(|step| {
            let begun = Instant::now();
            let are_queued = (0..10).all(|number| collector.collect(tick(step * 10 + number)).is_queued());
            // The worker catches up meanwhile. Reading the clock is no system call where the kernel offers it as a function.
            while begun.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
            are_queued
        })
    };
    // The worker naps by its pace when the thread gives up its right.
    watch(|| collect_all(300), || _ = collect_all(1_000), || collect_all(10_000));
}

#[test]
fn a_steady_loop_makes_no_system_call() {
    // Where something else keeps the thread from the processor for longer than a nap, the worker falls asleep: then the next
    // event wakes it, and the thread is killed.
    let mut tries = 0;
    while let Some(code) = watched(name_of!(collects_at_a_steady_rate_without_a_right_to_system_calls)) {
        if code == 0 {
            return;
        }
        assert_eq!(code, WAS_KILLED);
        tries += 1;
        assert!(tries < 30, "each time, collect made a system call");
    }
}
