//! Event files, against those of other writers and against damage.
#![allow(clippy::unwrap_used, clippy::panic)]

mod encoded;
mod torch;
