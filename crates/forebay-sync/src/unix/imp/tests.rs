use super::*;
use crate::sync::PlainBool;

#[test]
fn a_fork_between_two_steps_of_a_long_section_loses_no_thread() {
    let (is_inside, is_over) = (&PlainBool::new(false), &PlainBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _section = Section::enter();
            is_inside.store(true, Ordering::SeqCst);
            while !is_over.load(Ordering::SeqCst) {
                let_forks_in();
            }
        });
        while !is_inside.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        // SAFETY: the child does nothing but to leave.
        let child = unsafe { libc::fork() };
        if child == 0 {
            unsafe { libc::_exit(i32::from(!is_without_lost_threads())) };
        }
        is_over.store(true, Ordering::SeqCst);
        let mut status = -1;
        // SAFETY: a child of ours, for which nobody else waits.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the thread is lost");
    });
}

#[cfg(not(miri))]
#[test]
fn a_thread_of_ours_has_no_signal_for_a_full_file_whoever_starts_it() {
    fn is_held() -> bool {
        // SAFETY: both calls are given a set of ours, for which zeros are a value like others.
        unsafe {
            let mut held: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut held);
            libc::sigismember(&raw const held, libc::SIGXFSZ) == 1
        }
    }
    assert!(!is_held(), "the harness starts its threads without");
    let seen = Arc::new(PlainBool::new(false));
    let shown = Arc::clone(&seen);
    let thread = crate::sync::spawn("ours", None, move || shown.store(is_held(), Ordering::SeqCst));
    crate::sync::join(thread.expect("a thread"));
    assert!(seen.load(Ordering::SeqCst));
}
