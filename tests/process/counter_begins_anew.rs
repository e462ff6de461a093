//! The processor's counter begins anew from zero, or goes on years ahead, as after a suspend, a hibernation, or a restore by
//! CRIU on another machine. The kernel is set to let `rdtsc` fault, and a handler answers in its place.
#![allow(unsafe_code, reason = "libc")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use crate::support::*;
use forebay::config::{GateConfig, HealthConfig};
use forebay::sink::{MemorySink, SinkExt, from_fn};
use forebay::{Batch, Collector, Outcome, Record};

/// Number that is added to the counter, wrapping, and how often the handler has answered.
static OFFSET: AtomicU64 = AtomicU64::new(0);
static ANSWERS: AtomicU64 = AtomicU64::new(0);
/// Range of the code of the kernel that reads the counter for the system's clocks. It gets the true one.
static KERNEL: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

const PR_SET_TSC: i32 = 26;

/// Lets the calling thread, and threads that it starts from now on, read the counter or not; whether the kernel can do that.
fn allow_counter(is_allowed: bool) -> bool {
    // SAFETY: changes what an instruction of this thread does, which the handler below makes good.
    unsafe { libc::prctl(PR_SET_TSC, if is_allowed { 1 } else { 2 }, 0, 0, 0) == 0 }
}

fn counter() -> u64 {
    allow_counter(true);
    // SAFETY: reads a counter.
    let value = unsafe { core::arch::x86_64::_rdtsc() };
    allow_counter(false);
    value
}

/// Answers `rdtsc` and `rdtscp` in the place of the processor. Everything else that faults is a bug.
extern "C" fn answer(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands over the registers of the instruction that faulted, which lies in mapped memory.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let instruction = registers[libc::REG_RIP as usize] as *const u8;
        let length = match (*instruction, *instruction.add(1), *instruction.add(2)) {
            (0x0f, 0x31, _) => 2,
            (0x0f, 0x01, 0xf9) => 3,
            _ => {
                libc::signal(signal, libc::SIG_DFL);
                return;
            }
        };
        let mut value = counter();
        if !(KERNEL[0].load(SeqCst)..KERNEL[1].load(SeqCst)).contains(&(instruction as u64)) {
            ANSWERS.fetch_add(1, SeqCst);
            value = value.wrapping_add(OFFSET.load(SeqCst));
        }
        registers[libc::REG_RAX as usize] = (value & 0xffff_ffff) as i64;
        registers[libc::REG_RDX as usize] = (value >> 32) as i64;
        if length == 3 {
            registers[libc::REG_RCX as usize] = 0;
        }
        registers[libc::REG_RIP as usize] += length;
    }
}

/// Returns whether the counter can be answered for.
fn listen() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let Some(vdso) = maps.lines().find(|line| line.ends_with("[vdso]")) else { return false };
    let (from, rest) = vdso.split_once('-').unwrap();
    KERNEL[0].store(u64::from_str_radix(from, 16).unwrap(), SeqCst);
    KERNEL[1].store(u64::from_str_radix(rest.split_whitespace().next().unwrap(), 16).unwrap(), SeqCst);
    // SAFETY: the handler touches atomic numbers and its own thread alone.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = answer as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
    allow_counter(false)
}

#[test]
fn everything_goes_on_within_a_second() {
    alone!();
    if !listen() {
        return skipped("the kernel cannot let the counter fault");
    }
    // The machine has been up for some seconds when the collector is built.
    OFFSET.store(10_000_000_000_u64.wrapping_sub(counter()), SeqCst);
    let (begun, said) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let hears = Arc::clone(&said);
    let health = HealthConfig::default().with_max_latency(Duration::from_secs(60));
    let failing = from_fn("failing", |_: &Batch| Err(forebay::sink::SinkError::unavailable("no")));
    let memory = MemorySink::new();
    let collector = Collector::builder()
        .gate(GateConfig::default().with_rate_limit(1_000_000))
        .health(health)
        .on_log(move |_| _ = hears.fetch_add(1, SeqCst))
        .flush(forebay::FlushStrategy::Time { interval: Duration::from_millis(1) })
        .sink(failing)
        .sink(memory.clone().rate_limited(1_000_000).isolated(10_000))
        .start()
        .unwrap();
    let mut offered = 0;
    // From zero; years ahead; back again; and to the end of what the counter can tell, behind which it begins anew.
    let jumps: [fn(u64) -> u64; 4] = [
        |counter| 0_u64.wrapping_sub(counter),
        |counter| (1_u64 << 58).wrapping_sub(counter),
        |counter| 5_000_000_000_u64.wrapping_sub(counter),
        |counter| (u64::MAX - 1_000_000_000).wrapping_sub(counter),
    ];
    for (number, jump) in jumps.into_iter().enumerate() {
        OFFSET.store(jump(counter()), SeqCst);
        let (jumped, before) = (Instant::now(), (said.load(SeqCst), memory.received(), collector.stats()));
        loop {
            let before_it = SystemTime::now();
            let record = Record::scalar("x", 0.5);
            let (stamp, second) = (record.time(), Duration::from_secs(1));
            let is_right = stamp + second > before_it && stamp < SystemTime::now() + second;
            assert!(is_right, "jump {number}: {stamp:?} at {before_it:?}");
            assert_eq!(collector.collect(record), Outcome::Queued, "jump {number}");
            offered += 1;
            let stats = collector.stats();
            if said.load(SeqCst) > before.0 && memory.received() > before.1 && stats.rate > 0.0 {
                assert!(stats.uptime > before.2.uptime && stats.uptime <= begun.elapsed(), "jump {number}");
                assert!(stats.latency.max < Duration::from_secs(60), "jump {number}: {:?}", stats.latency);
                break;
            }
            assert!(jumped.elapsed() < LONG, "jump {number}: nothing goes on: {stats:?}");
        }
        let alerts = collector.health().alerts;
        assert!(!alerts.iter().any(|alert| alert.message.contains("busy")), "jump {number}: {alerts:?}");
    }
    collector.stop().unwrap();
    law(&collector, offered);
    assert!(ANSWERS.load(SeqCst) > 0, "somebody reads the counter");
}
