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
