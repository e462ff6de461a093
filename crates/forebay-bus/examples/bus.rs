//! A bus at work: handlers by pattern and type, derived events, a handler that fails, and what the bus tells in the end.
//!
//! `cargo run -p forebay-bus --example bus`
#![allow(clippy::print_stdout, reason = "its output is for a person")]

use std::error::Error;
use std::time::Duration;

use forebay::event::catalog::training::{Completed, EpochCompleted};
use forebay::sink::RetryPolicy;
use forebay::{Fields, Value};
use forebay_bus::{Bus, Handler, HandlerError, correlate};

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::new()?;

    // Emits what it finds: the derived event belongs to the same run.
    let emitter = bus.emitter();
    bus.on("training.epoch_completed", move |event| {
        let loss = event.value().as_fields().and_then(|fields| {
            let metrics = fields.get("metrics")?.as_fields()?;
            metrics.get("val_loss").and_then(Value::as_f64)
        });
        if loss.is_some_and(|loss| loss < 0.3) {
            let _ = emitter.emit("training.new_best_model", loss);
        }
    })?
    .keep();

    // By type: the event as it was emitted.
    bus.on_type(|run: &Completed| println!("the run took {:?}", run.total_duration))?.keep();

    // Fails, is called once more after 10 ms, then the event is a dead letter.
    let upload = Handler::new("training.new_best_model", |event| {
        Err(HandlerError::new(format!("no network, attempt {}", event.attempt())))
    });
    let policy = RetryPolicy::fixed(Duration::from_millis(10), 1);
    bus.subscribe(upload.named("upload").retry(policy))?.keep();

    {
        let _run = correlate("run-7");
        for epoch in 1..=3_u64 {
            let metrics = Fields::new().with("val_loss", 1.0 / (epoch + 1) as f64);
            bus.emit_event(EpochCompleted { epoch, metrics, duration: Duration::from_secs(9) })?;
        }
        bus.emit_event(Completed { total_duration: Duration::from_secs(27), ..Completed::default() })?;
    }
    bus.flush()?;
    while bus.dead_letters().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }

    println!("events of run-7:");
    // Critical events are delivered first: in the order of time, the end of the run comes last.
    let mut events = bus.correlated("run-7")?;
    events.sort_by_key(|event| event.time());
    for event in events {
        println!("  {event}");
    }
    for letter in bus.dead_letters().entries() {
        println!(
            "dead letter: {} after {} attempts ({})",
            letter.event.name(),
            letter.attempts,
            letter.error
        );
    }
    let stats = bus.stop()?.stats;
    for handler in &stats.handlers {
        println!(
            "{}: {} matched = {} handled + {} dead letters",
            handler.name, handler.matched, handler.handled, handler.dead_lettered
        );
    }
    stats.check_law(4 + 1)?;
    Ok(())
}
