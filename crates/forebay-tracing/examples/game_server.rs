//! A game server without an async runtime: a loop of ticks that must not wait, whose log goes to a file a day for people, and to lines of
//! JSON for programs.
//!
//! ```text
//! cargo run --release -p forebay-tracing --example game_server -- FOLDER
//! ```

#![allow(clippy::print_stdout, reason = "an example")]

use std::time::{Duration, Instant};

use forebay::sink::JsonLinesSink;
use forebay::{Builder, Collector};
use tracing::{info, info_span, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::{fmt, prelude::*};

/// Ticks of the game, and how long each may take.
const TICKS: u64 = 300;
const BUDGET: Duration = Duration::from_millis(2);

/// What is in the game: two balls on a line, which bounce.
struct World {
    places: [f64; 2],
    speeds: [f64; 2],
}

impl World {
    /// Moves everything, and returns how many balls have bounced.
    fn advance(&mut self) -> u64 {
        let mut bounced = 0;
        for (place, speed) in self.places.iter_mut().zip(&mut self.speeds) {
            *place += *speed;
            if !(0.0..=1.0).contains(place) {
                *speed = -*speed;
                *place = place.clamp(0.0, 1.0);
                bounced += 1;
            }
        }
        bounced
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let file = forebay_tracing::file(folder.join("server.log"))?.daily()?.keep(7);
    let (writer, lines) = forebay_tracing::lines(Builder::new().sink(file).start()?);
    let file = JsonLinesSink::create(folder.join("server.jsonl"))?;
    let (layer, events) = forebay_tracing::layer(Collector::builder().sink(file).start()?);
    let format = fmt::layer().with_ansi(false).with_writer(writer).with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(format).with(layer.with_durations()).init();

    let mut world = World { places: [0.1, 0.9], speeds: [0.013, 0.007] };
    {
        let _game = info_span!("game", room = 7).entered();
        for step in 0..TICKS {
            let begun = Instant::now();
            let bounced = world.advance();
            tracing::debug!(step, left = world.places[0], right = world.places[1], "tick");
            if bounced > 0 {
                info!(step, bounced, "a ball bounced");
            }
            let spent = begun.elapsed();
            if spent > BUDGET {
                warn!(step, spent = ?spent, "a tick took too long");
            }
        }
    }
    // One line each: how many were processed, and how many were lost, by reason.
    println!("lines:  {}\nevents: {}", lines.stop(), events.stop());
    Ok(())
}
