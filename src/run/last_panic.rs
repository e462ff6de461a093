//! The message of the last panic of a thread. A destructor that runs because of a panic cannot ask for it otherwise.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::time::Instant;

use crate::sync::{OnceLock, is_panicking, unforked};

static HOOKED: OnceLock<()> = OnceLock::new();

/// Time, message and place of a panic.
type Panic = (Instant, String, Option<String>);

thread_local! {
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Installs a hook in front of the present one, once.
pub(super) fn listen() {
    // A thread that panics must not touch the hooks.
    if is_panicking() || HOOKED.get().is_some() {
        return;
    }
    // A fork waits until it is done. A child could never finish what another thread has begun.
    unforked(|| {
        HOOKED.get_or_init(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                remember(panic);
                next(panic);
            }));
        });
    });
}

fn remember(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let said = text.unwrap_or("a value that is not text").to_owned();
    let place = panic.location().map(ToString::to_string);
    // A panic inside of this function would enter it again: then nothing is remembered.
    let _ = LAST
        .try_with(|last| last.try_borrow_mut().map(|mut last| *last = Some((Instant::now(), said, place))));
}

/// Takes the message and the place of this thread's last panic, unless it came before `begin`.
pub(super) fn take_since(begin: Instant) -> Option<(String, Option<String>)> {
    let last = LAST.try_with(|last| last.try_borrow_mut().ok()?.take()).ok().flatten();
    last.filter(|(time, ..)| *time >= begin).map(|(_, said, place)| (said, place))
}
