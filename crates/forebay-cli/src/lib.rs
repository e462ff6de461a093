//! The command line of [`forebay`]: what runs there are, which one was best, why another one failed, and what was lost.
//!
//! It reads the files of forebay and anybody's TensorBoard folders, and changes none of them.
//!
//! Exit codes: 0 where the question was answered, 1 where the answer is bad news (`doctor`) or nothing was found, 2 for wrong arguments
//! and files that cannot be read.

mod args;
mod broker;
mod chart;
mod commands;
mod error;
mod file;
mod folder;
mod image;
mod input;
mod out;
mod page;
mod progress;
mod screen;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;

use args::{Args, Command};
use error::Error;
use out::Out;

/// Runs the command line, and returns its exit code. The first argument is the name of the program.
pub fn main(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NoCommand;
            if error.use_stderr() && error.kind() != NoCommand {
                out::complain(&Error::Asked(error::one_line(&error.render().to_string())));
            } else {
                // Help is what was asked for. A pipe that is closed wants no more of it.
                _ = error.print();
            }
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let mut out = Out::new(io::stdout());
    match run(args.command, &mut out).and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            if !error.is_broken_pipe() {
                out::complain(&error);
            }
            error.code()
        }
    }
}

fn run(command: Command, out: &mut Out) -> Result<u8, Error> {
    match command {
        Command::Runs(asked) => commands::runs::run(&asked, out),
        Command::Best(asked) => commands::best::run(&asked, out),
        Command::Compare(asked) => commands::compare::run(&asked, out),
        Command::Query(asked) => commands::query::run(&asked, out),
        Command::Merge(asked) => commands::merge::run(&asked, out),
        Command::Top(asked) => commands::top::run(&asked, out),
        Command::Plot(asked) => commands::plot::run(&asked, out),
        Command::Export(asked) => commands::export::run(&asked, out),
        Command::Import(asked) => commands::import::run(&asked, out),
        Command::Report(asked) => commands::report::run(&asked, out),
        Command::Serve(asked) => commands::serve::run(&asked, out),
        Command::Tail(asked) => commands::tail::run(&asked, out),
        Command::Doctor(asked) => commands::doctor::run(&asked, out),
        Command::Completions { shell } => {
            let mut command = <Args as clap::CommandFactory>::command();
            // It panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "forebay", &mut script);
            out.write_all(&script)?;
            Ok(0)
        }
    }
}
