//! Options of the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use forebay::Overflow;
use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Trains a small neural network on handwritten digits and collects every batch of it.

Usage: train_digits [options]

  --epochs N           how often to go through the data, 1 or more       [default: 30]
  --batch-size N       images a step, 1 to 1437                          [default: 32]
  --learning-rate X    of the first step, more than 0                    [default: 0.1]
  --out DIR            where the files of the run go                     [default: runs/TIME]
  --resume DIR         goes on with the run in DIR after its last whole epoch, with its batch size,
                       learning rate and seed
  --seed N             of weights and shuffling                          [default: 7]
  --overflow POLICY    drop-oldest, drop-newest or block                 [default: drop-oldest]
  --redis URL          also into a stream of Redis, `forebay:digits:RANK` (feature `redis`)
  --ranks N            as so many processes at once, each with a seed of its own   [default: 1]
  --no-collect         train without collecting anything
  --help               this text";

pub(crate) enum Asked {
    Help,
    Run(Options),
}

pub(crate) struct Options {
    pub(crate) epochs: u64,
    pub(crate) batch_size: usize,
    pub(crate) learning_rate: f64,
    /// Folder of the files; empty for a new folder in `runs`.
    pub(crate) out: PathBuf,
    /// Goes on with the run in `out`.
    pub(crate) resume: bool,
    pub(crate) seed: u64,
    pub(crate) overflow: Overflow,
    /// URL of a server.
    pub(crate) redis: Option<String>,
    /// Number of processes.
    pub(crate) ranks: u64,
    pub(crate) collect: bool,
}

/// Reads the command line. The error is one line for a person.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Asked, lexopt::Error> {
    let mut options = Options {
        epochs: 30,
        batch_size: 32,
        learning_rate: 0.1,
        out: PathBuf::new(),
        resume: false,
        seed: 7,
        overflow: Overflow::DropOldest,
        redis: None,
        ranks: 1,
        collect: true,
    };
    let mut parser = lexopt::Parser::from_iter(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("epochs") => {
                options.epochs = number(&mut parser, "--epochs", "a whole number of 1 or more", |n| *n >= 1)?;
            }
            Long("batch-size") => {
                let allowed = "a whole number from 1 to 1437";
                options.batch_size =
                    number(&mut parser, "--batch-size", allowed, |n| (1..=1437).contains(n))?;
            }
            Long("learning-rate") => {
                let allowed = "a number above 0";
                options.learning_rate = number(&mut parser, "--learning-rate", allowed, |x| *x > 0.0)?;
            }
            Long("seed") => options.seed = number(&mut parser, "--seed", "a whole number", |_| true)?,
            Long("out") => options.out = parser.value()?.into(),
            Long("resume") => {
                options.out = parser.value()?.into();
                options.resume = true;
            }
            Long("overflow") => options.overflow = overflow(&parser.value()?.string()?)?,
            Long("redis") if cfg!(feature = "redis") => options.redis = Some(parser.value()?.string()?),
            Long("redis") => {
                let why =
                    "--redis takes the feature `redis` of train_digits, which this program was built without";
                return Err(why.into());
            }
            Long("ranks") => {
                options.ranks = number(&mut parser, "--ranks", "1 to 64", |n| (1..=64).contains(n))?;
            }
            Long("no-collect") => options.collect = false,
            Long("help") | Short('h') => return Ok(Asked::Help),
            _ => return Err(arg.unexpected()),
        }
    }
    if options.resume && !options.collect {
        return Err("--resume and --no-collect do not go together".into());
    }
    if options.ranks > 1 && options.resume {
        return Err("--resume and --ranks do not go together: resume each rank by its folder".into());
    }
    Ok(Asked::Run(options))
}

fn number<T: FromStr>(
    parser: &mut lexopt::Parser,
    option: &str,
    allowed: &str,
    is_allowed: impl Fn(&T) -> bool,
) -> Result<T, lexopt::Error> {
    let text = parser.value()?.string()?;
    let number = text.parse().ok().filter(is_allowed);
    number.ok_or_else(|| format!("{option} is {text:?}, allowed is {allowed}").into())
}

fn overflow(text: &str) -> Result<Overflow, lexopt::Error> {
    match text {
        "drop-oldest" => Ok(Overflow::DropOldest),
        "drop-newest" => Ok(Overflow::DropNewest),
        "block" => Ok(Overflow::Block { timeout: Duration::from_secs(1) }),
        _ => Err(format!("--overflow is {text:?}, allowed is drop-oldest, drop-newest or block").into()),
    }
}
