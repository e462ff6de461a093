//! Event files, against those of other writers and against damage.
#![allow(clippy::unwrap_used, clippy::panic)]

mod damage;
mod decoded;
mod encoded;
#[path = "../support/fuzz.rs"]
mod fuzz;
mod growing;
mod mutated;
mod round_trip;
mod scalars;
mod tensorboardx;
mod torch;
