//! Features of Unix: `fork`, a call at the end of the process, a limit on the size of files, the usage of a disk, and
//! the identity of files. Elsewhere, and under the model checker, this file does nothing, or what the standard
//! library can.
//!
//! A forked child has one thread. The worker does not exist there, and a lock may be held by a thread that does not
//! exist either. Such a thread may also have left a slot of a ring half-written: a push that came to it would spin
//! for ever. So the child must know before it touches anything, and without asking the system at every event. The
//! system tells us instead: a hook that runs in the child sets the phase word of every collector to `Forked`. The
//! load that every `collect` does anyway sees it.
//!
//! The sinks are the parent's. The child never calls nor drops them, so nothing there can write, or write again, what
//! the parent had collected.

pub use files::{
    FileId, duplicate, file_id, is_unlinked, open_append, open_handle, open_read, rename_new, sync_folder,
    without_sigpipe, write_stream, write_unlocked,
};
pub use imp::{
    ForkWatch, Section, advise_huge_pages, at_exit, disk_usage, end_thread, hold_sigxfsz, hook_forks,
    host_name, ignore_sigxfsz, is_without_lost_threads, let_forks_in, wait_until_writable, watch_forks,
};
#[cfg(all(unix, not(forebay_loom)))]
pub use imp::{SIGNALS, SignalSlot, has_default_effect};

/// Value that must know that it is in a forked child: the phase of a collector.
pub trait Orphan: Send + Sync + 'static {
    /// Marks the value as orphaned. Runs in the child, right after the fork: it may neither allocate nor wait.
    fn set_orphaned(&self);
}

#[cfg(all(unix, not(forebay_loom)))]
mod imp {
    #![allow(unsafe_code)]

    use std::cell::Cell;
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use crate::sync::plain::{
        Arc, OnceLock, Ordering, PlainBool, PlainPtr, PlainU64, RawMutex, Weak, note_fork,
    };

    use super::Orphan;

    /// Entry of the list of collectors. Entries are never freed, so that the hook can walk along them without a lock.
    /// Those of dropped collectors are reused. There are as many as there ever were collectors at one time.
    #[derive(Debug)]
    struct Entry {
        /// 1 while a collector owns the entry. The thread that changes it from 0 to 1 is the owner.
        is_taken: PlainU64,
        /// Locked by the owner alone, while its collector is built and while it is dropped. The hook only tries the
        /// lock.
        orphan: RawMutex<Option<Weak<dyn Orphan>>>,
        next: Link,
    }

    /// Pointer to the next entry, null until there is one. A `OnceLock` would be busy for ever in the child of a
    /// process that was just setting it.
    type Link = PlainPtr<Entry>;

    static FIRST: Link = Link::new(std::ptr::null_mut());
    /// 1 once the hooks are registered.
    static HOOKED: PlainU64 = PlainU64::new(0);

    fn get(link: &Link) -> Option<&'static Entry> {
        // SAFETY: a link is null or points to a leaked entry, which was complete when its pointer was stored by
        // Release.
        unsafe { link.load(Ordering::Acquire).as_ref() }
    }

    /// Returns the entry behind a link, and makes it if there is none.
    fn get_or_make(link: &Link) -> &'static Entry {
        if let Some(entry) = get(link) {
            return entry;
        }
        let new = Entry {
            is_taken: PlainU64::new(0),
            orphan: RawMutex::new(None),
            next: Link::new(std::ptr::null_mut()),
        };
        let new = Box::leak(Box::new(new));
        // The second thread uses the entry of the first; its own is leaked, a few bytes.
        let _ = link.compare_exchange(std::ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        get(link).unwrap_or(new)
    }

    /// State of a signal handler, one for each signal that can be watched. It lies here, and is never freed, so that
    /// the hooks reach it without a lock.
    #[derive(Debug)]
    pub struct SignalSlot {
        /// The number of the signal.
        pub signal: i32,
        /// True if the signal has its default effect, because nobody watches it, or nobody can in a forked child.
        pub is_default: OnceLock<Arc<PlainBool>>,
        /// True if the signal came since the last fork began.
        pub came: OnceLock<Arc<PlainBool>>,
        /// True if the signal had its default effect before it was watched, so that no other handler existed.
        pub had_default: PlainBool,
        /// The handler that leads to these flags, once it is registered.
        handler: OnceLock<Handler>,
    }

    /// What the system does at a signal.
    struct Handler(libc::sigaction);

    impl std::fmt::Debug for Handler {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Handler")
        }
    }

    impl SignalSlot {
        const fn new(signal: i32) -> Self {
            Self {
                signal,
                is_default: OnceLock::new(),
                came: OnceLock::new(),
                had_default: PlainBool::new(false),
                handler: OnceLock::new(),
            }
        }

        /// Notes the handler that the signal has, which is ours.
        pub fn note_handler(&self) {
            if let Some(action) = action_of(self.signal) {
                _ = self.handler.set(Handler(action));
            }
        }

        /// Installs the noted handler again.
        pub fn restore_handler(&self) -> std::io::Result<()> {
            let Some(Handler(action)) = self.handler.get() else { return Ok(()) };
            // SAFETY: the action is one that the system gave us. Its handler is a function that lives as long as the program.
            match unsafe { libc::sigaction(self.signal, action, std::ptr::null_mut()) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        }
    }

    /// Signals that can be watched.
    pub static SIGNALS: [SignalSlot; 6] = [
        SignalSlot::new(libc::SIGTERM),
        SignalSlot::new(libc::SIGINT),
        SignalSlot::new(libc::SIGHUP),
        SignalSlot::new(libc::SIGQUIT),
        SignalSlot::new(libc::SIGUSR1),
        SignalSlot::new(libc::SIGUSR2),
    ];

    /// Owner of an entry, until it is dropped with its collector.
    #[derive(Debug)]
    pub struct ForkWatch(&'static Entry);

    impl Drop for ForkWatch {
        fn drop(&mut self) {
            *self.0.orphan.lock() = None;
            self.0.is_taken.store(0, Ordering::Release);
        }
    }

    /// Marks `orphan` as orphaned in every forked child, until the watch is dropped.
    pub fn watch_forks(orphan: &Arc<impl Orphan>) -> ForkWatch {
        let orphan: Weak<dyn Orphan> = Arc::downgrade(orphan) as _;
        hook_forks();
        let mut link = &FIRST;
        loop {
            let entry = get_or_make(link);
            if entry.is_taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                *entry.orphan.lock() = Some(orphan);
                return ForkWatch(entry);
            }
            link = &entry.next;
        }
    }

    /// Returns whether the signal has no handler.
    pub fn has_default_effect(signal: i32) -> bool {
        action_of(signal).is_some_and(|action| action.sa_sigaction == libc::SIG_DFL)
    }

    /// Returns what the system does at a signal.
    fn action_of(signal: i32) -> Option<libc::sigaction> {
        // SAFETY: without a new action, the call only writes the old one into a structure of ours, for which zeros are
        // a value like others.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0).then_some(action)
        }
    }

    /// Registers the hooks below for every fork from now on.
    pub fn hook_forks() {
        if FORKS_FROM.get() != 0 && FORKS_FROM.get() != std::process::id() {
            // A handler of the program was registered before ours, so it runs before ours in this child. What it
            // makes is the child's own.
            orphan_all();
        }
        if HOOKED.load(Ordering::Acquire) == 1 {
            return;
        }
        // SAFETY: all are functions without arguments that live as long as the program, as
        // pthread_atfork(3) asks. They allocate nothing and wait for no lock, as a child of a process
        // with threads must not. (Should there be no memory for the hooks, forks go unnoticed, as they
        // would without them.)
        unsafe { libc::pthread_atfork(Some(prepare), Some(go_on), Some(orphan_all)) };
        // Two threads that are here at once both register. The hooks are then called twice at a fork, and do nothing
        // the second time. A wait of one for the other would hang a child that was forked meanwhile.
        HOOKED.store(1, Ordering::Release);
    }

    /// Threads in a [`Section`].
    static INSIDE: PlainU64 = PlainU64::new(0);
    /// Forks that have begun and are not done. With `INSIDE`, it forms a Dekker pair. A thread that enters writes
    /// `INSIDE` and reads this; one that forks writes this and reads `INSIDE`. All accesses are SeqCst, so that at
    /// least one of them sees the other.
    static FORKING: PlainU64 = PlainU64::new(0);
    /// Number of threads of a forked child's parents that were in a section at the fork. Their locks are
    /// held for ever.
    static LOST: PlainU64 = PlainU64::new(0);

    /// Number of forks that have ever begun.
    static BEGUN: PlainU64 = PlainU64::new(0);

    /// Longest wait of a fork for other threads to leave their sections, and of these for a fork before they enter
    /// one. A disk that hangs must not hang the program, and a fork may itself wait for a lock that the other thread
    /// holds.
    const MAX_FORK_DELAY: Duration = Duration::from_secs(1);
    /// Interval at which a waiting thread looks again, here or for a fork.
    const LOOK_AGAIN: Duration = Duration::from_micros(50);

    thread_local! {
        /// Number of sections that this thread is in.
        static DEPTH: Cell<u64> = const { Cell::new(0) };
        /// The process that this thread is forking; 0 between forks.
        static FORKS_FROM: Cell<u32> = const { Cell::new(0) };
        /// Number of the last fork for which this thread waited in vain.
        static GAVE_UP_ON: Cell<u64> = const { Cell::new(0) };
    }

    /// Part of the program in which no fork should find this thread, because it may hold locks that are not ours (of
    /// SQLite, of the standard library). While the value lives, a fork by another thread waits, at most a second.
    /// Sections nest.
    #[derive(Debug)]
    pub struct Section(());

    impl Section {
        /// Enters a section. Waits while another thread forks, at most a second.
        pub fn enter() -> Self {
            hook_forks();
            if DEPTH.get() == 0 {
                INSIDE.fetch_add(1, Ordering::SeqCst);
                if FORKING.load(Ordering::SeqCst) > 0 {
                    let_forks_pass();
                }
            }
            DEPTH.set(DEPTH.get() + 1);
            Self(())
        }
    }

    impl Drop for Section {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
            if DEPTH.get() == 0 {
                INSIDE.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Waits until no fork is under way, at most a second. After that the caller enters a section, and the child of
    /// such a fork finds it there. The caller counts as inside before and after, not meanwhile.
    #[cold]
    fn let_forks_pass() {
        // This thread itself is forking: handlers of the program are called between ours.
        if FORKS_FROM.get() != 0 {
            return;
        }
        let (fork, begun) = (BEGUN.load(Ordering::SeqCst), Instant::now());
        while FORKING.load(Ordering::SeqCst) > 0 && GAVE_UP_ON.get() != fork {
            if begun.elapsed() >= MAX_FORK_DELAY {
                // Once for each fork, not at each of many sections.
                GAVE_UP_ON.set(fork);
            }
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            crate::sync::plain::sleep(LOOK_AGAIN);
            INSIDE.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Lets waiting forks proceed, between two steps of a long section. In neither step may the caller hold a lock
    /// that is not its own.
    pub fn let_forks_in() {
        if DEPTH.get() == 1 && FORKING.load(Ordering::SeqCst) > 0 {
            let_forks_pass();
        }
    }

    /// Returns whether no thread of a parent was in a section when this process was forked.
    pub fn is_without_lost_threads() -> bool {
        LOST.load(Ordering::Relaxed) == 0
    }

    /// Returns the sections of the calling thread, as they are counted.
    fn own_sections() -> u64 {
        u64::from(DEPTH.get() > 0)
    }

    /// Stops threads from entering a section, and waits for those that are in one.
    fn hold_sections() {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        FORKING.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        while INSIDE.load(Ordering::SeqCst) > own_sections() && begun.elapsed() < MAX_FORK_DELAY {
            crate::sync::plain::sleep(LOOK_AGAIN);
        }
    }

    /// Ends a fork in the parent, right after it.
    extern "C" fn go_on() {
        if FORKS_FROM.replace(0) != 0 {
            FORKING.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Counts the lost sections in a child, whose only thread is this one. (This thread is in a section only where a
    /// signal handler has forked; then it still holds its locks.)
    fn count_lost_sections() {
        FORKING.store(0, Ordering::SeqCst);
        let inside = INSIDE.swap(own_sections(), Ordering::SeqCst);
        LOST.fetch_add(inside, Ordering::Relaxed);
    }

    /// Ends the calling thread, and with it the process if it is the only one. The status is 0, without exit
    /// handlers, destructors or a flush of buffers, which are those of the parent. Only a forked child calls it.
    pub fn end_thread() -> ! {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // SAFETY: exit(2) by its number ends this thread alone. Nothing on its stack is used by another one: its threads are
        // the parent's, and what the child has started since does not borrow from it.
        unsafe {
            libc::syscall(libc::SYS_exit, 0);
        }
        // SAFETY: it takes a number, and does not return.
        unsafe { libc::_exit(0) }
    }

    /// Registers a function that is called when the process ends by `exit`, or by a return from its main function.
    pub fn at_exit(function: extern "C" fn()) {
        // SAFETY: a function without arguments that lives as long as the program, or as the library that it is linked
        // into: the system calls it when that is unloaded. (Should there be no memory for it, it is not called.)
        unsafe { libc::atexit(function) };
    }

    /// Asks the system to back memory by huge pages, of 2 MiB instead of 4 KiB. The first write to a page costs a fault, and for a large
    /// buffer the faults of small pages take several times as long as the writes. It is advice: nothing happens where the system has no such
    /// pages, or gives them to nobody.
    pub fn advise_huge_pages<T>(memory: &mut [std::mem::MaybeUninit<T>]) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if !cfg!(miri) {
            // SAFETY: it takes a number.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let offset = usize::try_from(page).map_or(0, |page| memory.as_ptr().addr() % page.max(1));
            // From the begin of its first page, which the allocator uses as well. A range that began later would have no huge page there.
            let start = memory.as_mut_ptr().wrapping_byte_sub(offset);
            // SAFETY: this advice changes neither what is in memory nor what may be done with it, nor does it where other memory lies in
            // the two pages at the ends. An error means that it is not taken.
            unsafe { libc::madvise(start.cast(), size_of_val(memory) + offset, libc::MADV_HUGEPAGE) };
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = memory;
    }

    /// Returns how many bytes are used on the file system of `path`, and how many are left for us.
    pub fn disk_usage(path: &Path) -> Option<(u64, u64)> {
        let stats = rustix::fs::statvfs(path).ok()?;
        let taken = stats.f_blocks.saturating_sub(stats.f_bfree);
        Some((taken.saturating_mul(stats.f_frsize), stats.f_bavail.saturating_mul(stats.f_frsize)))
    }

    /// Returns the name of this machine.
    pub fn host_name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// Blocks SIGXFSZ on the calling thread, and on those that it starts. A write beyond the limit on the size of
    /// files (`ulimit -f`) then fails with an error instead of ending the process. The signal is sent to the thread
    /// that writes, so other threads keep what the program has arranged.
    pub fn hold_sigxfsz() {
        // Miri has no signals.
        if cfg!(miri) {
            return;
        }
        // SAFETY: all three calls are given a set of ours, for which zeros are a value like others.
        unsafe {
            let mut held: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut held);
            libc::sigaddset(&raw mut held, libc::SIGXFSZ);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const held, std::ptr::null_mut());
        }
    }

    /// Makes the whole process ignore SIGXFSZ, unless the program has a handler for it. Python and Node.js do the
    /// same when they start.
    ///
    /// The system sends this signal to a thread that writes beyond the limit on the size of files (`ulimit -f`, as
    /// batch systems set it). By default it ends the process. The threads of a collector need nothing: such a write
    /// is an error there, counted like that of a full disk. Call this where sinks run on threads of the program: in a
    /// bus that calls inline, and where a sink is used without a collector. It does nothing on systems without the
    /// signal.
    pub fn ignore_sigxfsz() {
        // SAFETY: the first call only writes the old action into a structure of ours, the second only reads one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let is_known = libc::sigaction(libc::SIGXFSZ, std::ptr::null(), &raw mut action) == 0;
            if is_known && action.sa_sigaction == libc::SIG_DFL {
                action.sa_sigaction = libc::SIG_IGN;
                libc::sigaction(libc::SIGXFSZ, &raw const action, std::ptr::null_mut());
            }
        }
    }

    /// Waits until `out` can be written to, or the time is over. May return early. Without a descriptor, it waits a
    /// millisecond.
    pub fn wait_until_writable(out: Option<&impl AsFd>, timeout: Duration) {
        let millisecond = Duration::from_millis(1);
        let Some(out) = out else { return crate::sync::plain::sleep(timeout.min(millisecond)) };
        let timespec = Timespec::try_from(timeout).ok();
        let polled = poll(&mut [PollFd::new(out, PollFlags::OUT)], timespec.as_ref());
        if polled.is_err() {
            crate::sync::plain::sleep(timeout.min(millisecond));
        }
    }

    /// Marks every collector and signal as orphaned. Runs in the child, right after the fork.
    extern "C" fn orphan_all() {
        if FORKS_FROM.replace(0) == 0 {
            // The hook has run already: see `hook_forks`.
            return;
        }
        note_fork();
        count_lost_sections();
        let mut link = &FIRST;
        while let Some(entry) = get(link) {
            // The entry is locked only if another thread was building or dropping this collector at the fork. Then
            // nothing in the child uses it.
            let orphan = entry.orphan.try_lock().and_then(|held| held.as_ref()?.upgrade());
            if let Some(orphan) = orphan {
                orphan.set_orphaned();
                // If this is the last reference, the child frees memory here, which malloc allows.
            }
            link = &entry.next;
        }
        orphan_signals();
    }

    /// Prepares a fork in the parent, right before it. No thread is halfway in a section then, and signals that came
    /// until now are not the child's.
    extern "C" fn prepare() {
        if FORKS_FROM.replace(std::process::id()) != 0 {
            return;
        }
        hold_sections();
        for came in SIGNALS.iter().filter_map(|slot| slot.came.get()) {
            came.store(false, Ordering::SeqCst);
        }
    }

    /// Gives signals their default effect in a forked child, which has no thread that could handle them.
    fn orphan_signals() {
        for slot in &SIGNALS {
            let (Some(is_default), Some(came)) = (slot.is_default.get(), slot.came.get()) else { continue };
            if slot.had_default.load(Ordering::SeqCst) {
                is_default.store(true, Ordering::SeqCst);
                if came.load(Ordering::SeqCst) {
                    // The signal came between the fork and here.
                    unsafe { libc::raise(slot.signal) };
                }
            }
        }
    }

    #[cfg(test)]
    mod tests;
}

#[cfg(any(not(unix), forebay_loom))]
mod imp {
    #![allow(missing_docs, reason = "as above")]

    use super::Orphan;
    use crate::sync::plain::Arc;

    #[derive(Debug)]
    pub struct ForkWatch(());

    pub fn watch_forks(_: &Arc<impl Orphan>) -> ForkWatch {
        ForkWatch(())
    }

    pub fn hook_forks() {}

    #[derive(Debug)]
    pub struct Section(());

    impl Section {
        pub fn enter() -> Self {
            Self(())
        }
    }

    pub fn is_without_lost_threads() -> bool {
        true
    }

    pub fn let_forks_in() {}

    /// Does nothing: nobody forks here.
    pub fn end_thread() {}

    pub fn at_exit(_: extern "C" fn()) {}

    pub fn advise_huge_pages<T>(_: &mut [std::mem::MaybeUninit<T>]) {}

    pub fn hold_sigxfsz() {}

    pub fn wait_until_writable<T>(_: Option<&T>, timeout: std::time::Duration) {
        crate::sync::plain::sleep(timeout.min(std::time::Duration::from_millis(1)));
    }

    /// Does nothing: this system has no such signal.
    pub fn ignore_sigxfsz() {}

    #[cfg(not(unix))]
    pub fn host_name() -> String {
        gethostname::gethostname().to_string_lossy().into_owned()
    }

    #[cfg(unix)]
    pub fn host_name() -> String {
        "model".to_owned()
    }

    pub fn disk_usage(_: &std::path::Path) -> Option<(u64, u64)> {
        None
    }
}

/// Functions for file sinks beyond the standard library.
#[cfg(unix)]
mod files {
    #![allow(unsafe_code)]

    use std::fs::{self, File, Metadata, OpenOptions};
    use std::io::{self, Write};
    use std::os::fd::{AsFd, FromRawFd};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::io::{FdFlags, fcntl_setfd};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

    /// Identity of a file. No other file has it as long as the file is open.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FileId {
        device: u64,
        inode: u64,
    }

    /// Returns the identity of a file; `None` where the platform has none.
    pub fn file_id(data: &Metadata) -> Option<FileId> {
        Some(FileId { device: data.dev(), inode: data.ino() })
    }

    /// Returns whether no folder lists the file any more, so that it ends with its last descriptor.
    pub fn is_unlinked(file: &File) -> bool {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{AtFlags, StatxFlags, statx};
            // These flags ask for so little that a file system on another machine need not be asked.
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
            if let Ok(data) = statx(file, "", flags, StatxFlags::NLINK) {
                return data.stx_nlink == 0;
            }
        }
        file.metadata().is_ok_and(|data| data.nlink() == 0)
    }

    /// Opens a file for appending alone, and creates it if it is missing. Connects to a socket.
    pub fn open_append(path: &Path) -> io::Result<File> {
        // A pipe without a reader is an error at once, instead of a wait without end. A terminal does not become the
        // controlling one of the process.
        let opened = OpenOptions::new()
            .append(true)
            .create(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let file = match opened {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EOPNOTSUPP)) => {
                let kind = fs::metadata(path)?.file_type();
                if kind.is_socket() {
                    return connect(path);
                } else if kind.is_fifo() {
                    return Err(io::Error::new(io::ErrorKind::NotConnected, "the pipe has no reader"));
                }
                return Err(error);
            }
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            // Writes wait until they are possible, as they do for a plain file.
            fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        }
        Ok(file)
    }

    /// Connects to a socket, and never waits for the listener. A full queue of the listener is an error.
    fn connect(path: &Path) -> io::Result<File> {
        let address = SocketAddrUnix::new(path)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        rustix::net::connect(&socket, &address)?;
        fcntl_setfl(&socket, fcntl_getfl(&socket)? - OFlags::NONBLOCK)?;
        Ok(File::from(socket))
    }

    /// Opens a file for reading, and never waits for the other end of a pipe.
    pub fn open_read(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
    }

    /// Opens a file only to ask whether it still has a name. Closing an ordinary descriptor would release the locks that
    /// this process has on the file.
    pub fn open_handle(path: &Path) -> io::Result<File> {
        #[cfg(target_os = "linux")]
        {
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = path;
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Duplicates a descriptor of this process that can be written to.
    pub fn duplicate(descriptor: i32) -> io::Result<File> {
        // SAFETY: fcntl takes any number, and refuses one that is no open descriptor.
        let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else owns it.
        let file = unsafe { File::from_raw_fd(copy) };
        if fcntl_getfl(&file)? & OFlags::ACCMODE == OFlags::RDONLY {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(file)
    }

    /// Writes to a pipe, a socket or a device. Waits until it can be written to, although the descriptor may be
    /// non-blocking. A reader that went away is an error, and no signal.
    pub fn write_stream(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match without_sigpipe(|| file.write(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    super::wait_until_writable(Some(&file), std::time::Duration::from_secs(1));
                }
                written => return written,
            }
        }
    }

    /// Writes to the descriptor of a stream, without its buffer and its lock.
    pub fn write_unlocked(stream: &mut impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(stream, bytes)?)
    }

    /// Calls `write` with SIGPIPE blocked on this thread, and removes the one that it may have raised. Rust ignores
    /// the signal, but a program in another language that embeds this library may not.
    pub fn without_sigpipe<R>(write: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        // SAFETY: all calls are given sets of ours, for which zeros are a value like others. The signal is raised on the
        // thread that writes, so `sigwait` finds it and returns at once.
        unsafe {
            let mut sigpipe: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut sigpipe);
            libc::sigaddset(&raw mut sigpipe, libc::SIGPIPE);
            let is_pending = || {
                let mut pending: libc::sigset_t = std::mem::zeroed();
                libc::sigpending(&raw mut pending) == 0
                    && libc::sigismember(&raw const pending, libc::SIGPIPE) == 1
            };
            let was_pending = is_pending();
            let mut before: libc::sigset_t = std::mem::zeroed();
            if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const sigpipe, &raw mut before) != 0 {
                return write();
            }
            let written = write();
            let is_broken = matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
            if is_broken && !was_pending && is_pending() {
                libc::sigwait(&raw const sigpipe, &mut 0);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            written
        }
    }

    /// Renames a file, unless a file has the new name.
    pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            use rustix::io::Errno;
            match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                // The kernel or the file system cannot do it, or may not.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => {}
                renamed => return Ok(renamed?),
            }
        }
        super::look_and_rename(from, to)
    }

    /// Writes the names in a folder to the disk.
    pub fn sync_folder(folder: &Path) -> io::Result<()> {
        match File::open(folder)?.sync_all() {
            // Some file systems cannot.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }
}

#[cfg(not(unix))]
mod files {
    #![allow(missing_docs, reason = "as above")]

    use std::fs::{File, Metadata, OpenOptions};
    use std::io::{self, Write};
    use std::path::Path;

    pub use super::look_and_rename as rename_new;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FileId(());

    pub fn file_id(_: &Metadata) -> Option<FileId> {
        None
    }

    pub fn is_unlinked(_: &File) -> bool {
        false
    }

    pub fn open_append(path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).open(path)
    }

    pub fn open_read(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    pub fn open_handle(_: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn duplicate(_: i32) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn write_stream(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    /// Writes to a stream: this system has no forks that could find its lock taken.
    pub fn write_unlocked(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        let written = stream.write(bytes)?;
        stream.flush()?;
        Ok(written)
    }

    pub fn without_sigpipe<R>(write: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        write()
    }

    pub fn sync_folder(_: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Renames a file, unless it sees a file of the new name first.
pub fn look_and_rename(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(to) {
        Ok(_) => Err(std::io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::rename(from, to),
        Err(error) => Err(error),
    }
}
