//! Several processes at once, as a launcher starts them.

use std::error::Error;
use std::process::{Command, ExitCode, Stdio};

use forebay::run::Rank;

use crate::options::Options;

/// Runs this program once for each rank, with the same options, and waits for all of them. The first one prints its report.
pub(crate) fn run(mut options: Options) -> Result<ExitCode, Box<dyn Error>> {
    if options.out.as_os_str().is_empty() {
        options.out = forebay::run::folder("runs")?;
    }
    let ranks = (0..options.ranks).map(|rank| {
        let folder = Rank { rank, local_rank: Some(rank), world_size: options.ranks }.folder(&options.out);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).args(["--ranks", "1", "--seed"]);
        command.arg(options.seed.wrapping_add(rank).to_string()).arg("--out").arg(folder);
        command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
        command.env("WORLD_SIZE", options.ranks.to_string());
        if rank > 0 {
            command.stdout(Stdio::null());
        }
        command.spawn()
    });
    let ranks = ranks.collect::<Result<Vec<_>, _>>()?;
    let mut has_failed = false;
    for mut rank in ranks {
        has_failed |= !rank.wait()?.success();
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
