//! Serde format of durations: a text (`"1s 500ms"`) or a number of seconds. For `#[serde(with = "...")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Duration in the form of a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(u64),
    Seconds(f64),
    Text(String),
}

impl Written {
    fn read(self) -> Option<Duration> {
        match self {
            Self::Whole(seconds) => Some(Duration::from_secs(seconds)),
            Self::Seconds(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Self::Text(text) => match text.trim().parse() {
                Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
                Err(_) => humantime::parse_duration(text.trim()).ok(),
            },
        }
    }
}

/// Writes a duration as a text: `1s 500ms`.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads a duration from a text or a number of seconds.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let read = Written::deserialize(deserializer).ok().and_then(Written::read);
    read.ok_or_else(|| {
        D::Error::custom("a duration such as \"250ms\" or \"1s 500ms\", or a number of seconds")
    })
}

/// Duration by itself, for the forms below.
#[derive(serde::Serialize, serde::Deserialize)]
struct One(#[serde(with = "super::duration")] Duration);

/// Serde format of a duration or none.
pub mod option {
    use super::{Deserialize, Deserializer, Duration, One, Serializer};

    /// Writes a duration, or none.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&duration.map(One), serializer)
    }

    /// Reads a duration, or none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<One>::deserialize(deserializer)?.map(|one| one.0))
    }
}

/// Serde format of a list of durations.
pub mod list {
    use super::{Deserialize, Deserializer, Duration, One, Serializer};

    /// Writes a list of durations.
    pub fn serialize<S: Serializer>(durations: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(durations.iter().map(|duration| One(*duration)))
    }

    /// Reads a list of durations.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<One>::deserialize(deserializer)?.into_iter().map(|one| one.0).collect())
    }
}
