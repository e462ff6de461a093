//! Internal part of `forebay`: primitives that synchronise, clocks, and the watch for forks.
//!
//! **No promise holds here.** Its version is that of `forebay`, which needs exactly this one; any release may change anything.
//!
//! It is the only crate of the workspace that uses [loom]. With one file of the Python package, it alone has `unsafe`
//! code. All other crates synchronise by what [`sync`] exports, so that the model checker can replace it by its own
//! primitives.
//!
//! | module | what it has |
//! |---|---|
//! | [`sync`] | locks, atomics, threads, marks of threads; what they do in a forked child |
//! | [`clock`] | time stamps, spans of time, a clock that a test moves |
//! | [`permit`] | permission to call user code, which can be revoked |
//! | [`pool`] | a queue whose producers have a lane each |
//! | [`unix`] | what only Unix has: forks, signals, identity of files |
//!
//! [loom]: https://docs.rs/loom

pub mod permit;

pub mod clock;

pub mod pool;

pub mod sync;
pub mod unix;
