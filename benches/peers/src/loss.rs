//! What metrique is given, in the table and in the latency program.

use std::hint::black_box;
use std::time::SystemTime;

/// Entry of metrique with the content of the others: a name, a value, a step, a time.
#[derive(metrique_writer::Entry)]
pub struct Loss {
    #[entry(timestamp)]
    time: SystemTime,
    #[entry(name = "train.loss")]
    loss: f64,
    step: u64,
}

impl Loss {
    pub fn of(step: u64) -> Self {
        Self { time: SystemTime::now(), loss: black_box(0.5), step }
    }
}
