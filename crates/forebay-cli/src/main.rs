//! The program `forebay`: see [`forebay_cli::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay_cli::main(std::env::args_os()).into()
}
