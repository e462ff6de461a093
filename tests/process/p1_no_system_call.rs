//! P1: `collect` makes no system call but the one that wakes a sleeping worker. The kernel itself watches: a thread
//! with a seccomp filter that allows nothing is killed when it asks for anything.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::*;
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
    // Asleep, and not called before half of the lane is full.
    let interval = std::time::Duration::from_secs(3600);
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
            & all_are(Outcome::Full, &|n| refusing.collect(tick(n)))
            & all_are(Outcome::Queued, &|n| asleep.collect(Record::scalar("train.loss", 0.5).with_step(n)))
            & all_are(Outcome::Stopped, &|n| stopped.collect(tick(n)))
    };
    let (stage, ended, thread) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The clock is calibrated, the thread has its number.
            let is_right = collect_all(300);
            thread.store(thread_id() as u64, Ordering::SeqCst);
            stage.store(1, Ordering::SeqCst);
            while stage.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
            if !give_up_system_calls() {
                std::process::exit(NO_SECCOMP);
            }
            let is_right = is_right && collect_all(EACH);
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
    });
}

#[test]
fn collect_makes_no_system_call() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name_of!(collects_without_a_right_to_system_calls), "--nocapture"])
        .env(WATCHED, "1")
        .spawn()
        .unwrap();
    match Killed(child).code() {
        Some(NO_SECCOMP) => skipped("this system has no seccomp"),
        Some(WAS_KILLED) => panic!("collect made a system call"),
        code => assert_eq!(code, Some(0)),
    }
}
