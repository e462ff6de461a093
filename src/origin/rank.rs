//! `Rank`: the number of a process in its run.

use std::path::PathBuf;

/// Number of this process among those that work on a run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Rank {
    /// Number of the process among all, from 0.
    pub rank: u64,
    /// Number of the process among those of its machine, from 0, where that is known.
    pub local_rank: Option<u64>,
    /// The number of processes.
    pub world_size: u64,
}

/// Error of an environment that does not say which process of the run this is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {variable} must be {allowed}, got {value}")]
#[non_exhaustive]
pub struct RankError {
    /// Name of the variable.
    pub variable: &'static str,
    /// The value it has.
    pub value: String,
    /// The values it may have.
    pub allowed: String,
}

impl Default for Rank {
    /// Returns the rank of a process that is alone.
    fn default() -> Self {
        Self { rank: 0, local_rank: None, world_size: 1 }
    }
}

impl Rank {
    /// Reads `RANK`, `LOCAL_RANK` and `WORLD_SIZE`, as torchrun and others set them. Without them, returns the rank
    /// of a process that is alone. An empty variable counts as not set. Other launchers name the rank otherwise: set
    /// `RANK` from `SLURM_PROCID` or `OMPI_COMM_WORLD_RANK` there.
    ///
    /// # Errors
    ///
    /// A variable is no whole number, `RANK` or `LOCAL_RANK` is not below `WORLD_SIZE`, or `LOCAL_RANK` is above
    /// `RANK`. Or `WORLD_SIZE` is more than one and `RANK` is not set: then every process would take itself for the
    /// first.
    pub fn from_env() -> Result<Self, RankError> {
        Self::from_vars(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Returns the rank, if the environment sets one.
    pub(crate) fn if_set() -> Option<u64> {
        let is_set = std::env::var_os("RANK").is_some_and(|rank| !rank.to_string_lossy().trim().is_empty());
        Self::from_env().ok().filter(|_| is_set).map(|rank| rank.rank)
    }

    fn from_vars(value_of: impl Fn(&str) -> Option<String>) -> Result<Self, RankError> {
        let number = |variable| -> Result<Option<u64>, RankError> {
            let Some(value) = value_of(variable).filter(|value| !value.trim().is_empty()) else {
                return Ok(None);
            };
            let allowed = || "a whole number from 0".to_owned();
            let number = value.trim().parse();
            number.map(Some).map_err(|_| RankError {
                variable,
                value: format!("{value:?}"),
                allowed: allowed(),
            })
        };
        let (rank, local_rank) = (number("RANK")?, number("LOCAL_RANK")?);
        let (largest, whose) = match (rank, local_rank) {
            (Some(rank), Some(local)) if local > rank => (local, "LOCAL_RANK"),
            (Some(rank), _) => (rank, "RANK"),
            (None, Some(local)) => (local, "LOCAL_RANK"),
            (None, None) => (0, "RANK"),
        };
        let world_size = number("WORLD_SIZE")?;
        if world_size.unwrap_or(1) <= largest {
            let value = world_size.map_or_else(|| "nothing".to_owned(), |size| size.to_string());
            let allowed = format!("more than {whose} ({largest})");
            return Err(RankError { variable: "WORLD_SIZE", value, allowed });
        }
        let world_size = world_size.unwrap_or(1);
        if rank.is_none() && world_size > 1 {
            let allowed = format!("a whole number below WORLD_SIZE ({world_size})");
            return Err(RankError { variable: "RANK", value: "nothing".to_owned(), allowed });
        }
        let rank = rank.unwrap_or(0);
        // No more processes of its machine come before it than of all machines.
        if let Some(local) = local_rank.filter(|local| *local > rank) {
            let allowed = format!("at most RANK ({rank})");
            return Err(RankError { variable: "LOCAL_RANK", value: local.to_string(), allowed });
        }
        Ok(Self { rank, local_rank, world_size })
    }

    /// Returns the folder of this rank in that of the run: `rank-00003` in it, or the folder itself for a process
    /// that is alone. Files have one writer.
    pub fn folder(&self, run: impl Into<PathBuf>) -> PathBuf {
        let run = run.into();
        if self.world_size == 1 { run } else { run.join(format!("rank-{:05}", self.rank)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(vars: &[(&str, &str)]) -> Result<Rank, String> {
        let value_of =
            |name: &str| vars.iter().find(|(var, _)| *var == name).map(|(_, value)| (*value).to_owned());
        Rank::from_vars(value_of).map_err(|error| error.to_string())
    }

    #[test]
    fn the_usual_variables_give_the_rank() {
        assert_eq!(rank(&[]), Ok(Rank::default()));
        let third = Rank { rank: 3, local_rank: Some(1), world_size: 4 };
        assert_eq!(rank(&[("RANK", "3"), ("LOCAL_RANK", " 1"), ("WORLD_SIZE", "4")]), Ok(third));
        assert_eq!(third.folder("runs/1"), PathBuf::from("runs/1/rank-00003"));
        assert_eq!(Rank::default().folder("runs/1"), PathBuf::from("runs/1"));
    }

    #[test]
    fn what_contradicts_itself_is_named_with_what_is_allowed() {
        let error_of = |vars: &[_]| rank(vars).err().unwrap_or_default();
        assert_eq!(
            error_of(&[("RANK", "first"), ("WORLD_SIZE", "2")]),
            "environment variable RANK must be a whole number from 0, got \"first\""
        );
        assert_eq!(
            error_of(&[("RANK", "2"), ("WORLD_SIZE", "2")]),
            "environment variable WORLD_SIZE must be more than RANK (2), got 2"
        );
        assert_eq!(
            error_of(&[("RANK", "1")]),
            "environment variable WORLD_SIZE must be more than RANK (1), got nothing"
        );
        assert_eq!(
            error_of(&[("LOCAL_RANK", "5"), ("WORLD_SIZE", "4"), ("RANK", "0")]),
            "environment variable WORLD_SIZE must be more than LOCAL_RANK (5), got 4"
        );
        assert!(error_of(&[("WORLD_SIZE", "0")]).ends_with("got 0"));
        let alone = "environment variable RANK must be a whole number below WORLD_SIZE (4), got nothing";
        assert_eq!(error_of(&[("WORLD_SIZE", "4")]), alone, "all four would write into one folder");
        assert_eq!(error_of(&[("WORLD_SIZE", "4"), ("LOCAL_RANK", "3")]), alone);
        assert_eq!(error_of(&[("WORLD_SIZE", "4"), ("RANK", " ")]), alone, "empty is not set");
        assert_eq!(
            error_of(&[("RANK", "0"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")]),
            "environment variable LOCAL_RANK must be at most RANK (0), got 1"
        );
        assert_eq!(rank(&[("WORLD_SIZE", "1"), ("RANK", ""), ("LOCAL_RANK", "")]), Ok(Rank::default()));
    }
}
