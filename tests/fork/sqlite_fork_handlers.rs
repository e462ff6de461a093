//! P9 in a program that has handlers of its own around `fork`. They are registered before those of forebay, as libraries do it, and
//! so run between them and the fork, in the middle of what forebay does at a fork.
#![allow(unsafe_code, reason = "fork and handlers of it")]

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use crate::child::in_child;
use crate::support::*;
use forebay::sink::{MemorySink, SqliteSink};
use forebay::{Collector, Outcome, Record};
use forebay_history::{EventQuery, History, SqliteHistory};

type Handler = Mutex<Option<Box<dyn FnOnce() + Send>>>;

static PREPARE: Handler = Mutex::new(None);
static IN_PARENT: Handler = Mutex::new(None);
static IN_CHILD: Handler = Mutex::new(None);

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn call(handler: &Handler) {
    let taken = unpoisoned(handler).take();
    taken.into_iter().for_each(|handler| handler());
}

extern "C" fn prepare() {
    call(&PREPARE);
}

extern "C" fn in_parent() {
    call(&IN_PARENT);
}

extern "C" fn at_child() {
    call(&IN_CHILD);
}

/// Registers the handlers, before anything of forebay is used. One test at a time: handlers are those of the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static REGISTERED: Once = Once::new();
    let turn = unpoisoned(&TURN);
    // SAFETY: functions without arguments, which live as long as the program.
    REGISTERED.call_once(|| unsafe {
        libc::pthread_atfork(Some(prepare), Some(in_parent), Some(at_child));
    });
    turn
}

fn set(handler: &Handler, then: impl FnOnce() + Send + 'static) {
    *unpoisoned(handler) = Some(Box::new(then));
}

/// Runs `body` on a thread of its own, which must come to an end.
#[track_caller]
fn ends<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(body()));
    receiver.recv_timeout(LONG).unwrap()
}

#[test]
fn a_handler_of_a_fork_can_use_sqlite_before_the_fork_and_in_the_parent() {
    alone!();
    let _turn = turn();
    for handler in [&PREPARE, &IN_PARENT] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.db");
        let collector = Collector::builder().sink(MemorySink::new()).start().unwrap();
        let (sender, receiver) = channel();
        set(handler, move || {
            drop(SqliteSink::create(&path).unwrap());
            sender
                .send(SqliteHistory::open(&path).unwrap().query(&EventQuery::new()).unwrap().len())
                .unwrap();
        });
        assert_eq!(ends(|| in_child(|| true)), Some(0));
        assert_eq!(receiver.recv().unwrap(), 0);
        collector.collect(Record::new("parent"));
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn what_a_handler_of_a_fork_opens_in_the_child_is_the_childs_own() {
    alone!();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.db");
    let collector = Collector::builder().sink(MemorySink::new()).start().unwrap();
    let made = Arc::new(Mutex::new(None));
    let (kept, file, inherited) = (Arc::clone(&made), path.clone(), collector.clone());
    set(&IN_CHILD, move || {
        let own = Collector::builder().sink(SqliteSink::create(&file).unwrap()).start().unwrap();
        assert_eq!(inherited.collect(Record::new("child")), Outcome::Forked);
        *unpoisoned(&kept) = Some(own);
    });
    let status = in_child(|| {
        let own = unpoisoned(&made).take().unwrap();
        assert_eq!(own.collect(Record::new("child")), Outcome::Queued);
        own.stop().unwrap();
        law(&own, 1);
        SqliteHistory::open(&path).unwrap().query(&EventQuery::new()).unwrap().len() == 1
    });
    assert_eq!(status, Some(0));
    unpoisoned(&IN_CHILD).take();
    collector.collect(Record::new("parent"));
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_thread_that_holds_what_a_handler_of_a_fork_waits_for_can_use_sqlite() {
    alone!();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.db");
    let collector = Collector::builder().sink(MemorySink::new()).start().unwrap();
    let (lock, waits) = (Arc::new(Mutex::new(())), Gate::closed());
    let ((locked, is_locked), (sender, receiver)) = (channel(), channel());
    let (own, reached) = (Arc::clone(&lock), waits.clone());
    std::thread::spawn(move || {
        let held = unpoisoned(&own);
        locked.send(()).unwrap();
        reached.pass();
        // Many sections: they wait a second for the fork together, not each.
        drop(SqliteSink::create(&path).unwrap());
        let history = SqliteHistory::open(&path).unwrap();
        let found: usize = (0..100).map(|_| history.query(&EventQuery::new()).unwrap().len()).sum();
        drop(held);
        sender.send(found).unwrap();
    });
    is_locked.recv().unwrap();
    set(&PREPARE, move || {
        waits.open();
        drop(unpoisoned(&lock));
    });
    assert_eq!(ends(|| in_child(|| true)), Some(0));
    assert_eq!(receiver.recv().unwrap(), 0);
    collector.collect(Record::new("parent"));
    collector.stop().unwrap();
    law(&collector, 1);
}
