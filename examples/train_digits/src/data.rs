//! The digits: see DATA.md for where they come from.

use std::error::Error;
use std::io::Read;

use crate::net::{CLASSES, INPUTS};

const FILE: &[u8] = include_bytes!("../digits.csv.gz");

/// One image: grey values from 0 to 1, and what it shows.
pub(crate) struct Digit {
    pub(crate) pixels: [f32; INPUTS],
    pub(crate) class: usize,
}

/// Four fifths to learn from, one to be examined on.
pub(crate) struct Digits {
    pub(crate) train: Vec<Digit>,
    pub(crate) test: Vec<Digit>,
}

/// Reads the images and splits them, shuffled by `seed`.
pub(crate) fn load(seed: u64) -> Result<Digits, Box<dyn Error>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(FILE).read_to_string(&mut text)?;
    let mut train: Vec<Digit> = text.lines().map(parse).collect::<Result<_, _>>()?;
    Random::new(seed).shuffle(&mut train);
    let test = train.split_off(train.len() * 4 / 5);
    Ok(Digits { train, test })
}

fn parse(line: &str) -> Result<Digit, Box<dyn Error>> {
    let mut numbers = line.split(',').map(str::parse::<u8>);
    let mut pixels = [0.0; INPUTS];
    for pixel in &mut pixels {
        *pixel = f32::from(numbers.next().ok_or("a line is too short")??) / 16.0;
    }
    let class = usize::from(numbers.next().ok_or("a line has no class")??);
    if class >= CLASSES {
        return Err("a class is not a digit".into());
    }
    Ok(Digit { pixels, class })
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a random weight, evenly from -1 to 1.
    pub(crate) fn weight(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Shuffles the items, by Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}
