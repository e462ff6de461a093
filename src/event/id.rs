//! The id of an event of a bus: a session and a number.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// The id of an event: the session of the bus that gave it, and its number there. The same for all handlers and all calls, unique
/// across runs, and in the journal ([`Record::event_id`](crate::Record::event_id)).
///
/// Written as `SESSION:NUMBER`, in JSON as well. Ids sort by the start of their bus, to the millisecond, then by number. The
/// default is the id of an event that was given none.
///
/// ```
/// use forebay::event::EventId;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id: EventId = "0193b5a0-7d3e-7c11-9a52-3f1d2b6c4e80:1".parse()?;
/// assert_eq!((id.session().as_str(), id.number()), ("0193b5a0-7d3e-7c11-9a52-3f1d2b6c4e80", 1));
/// assert_eq!(id.to_string().parse::<EventId>()?, id);
/// assert!(id < "0193b5a0-7d3e-7c11-9a52-3f1d2b6c4e80:2".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    session: Uuid,
    /// 0 for none.
    number: u64,
}

impl EventId {
    /// Makes the id of event `number` of a session.
    #[doc(hidden)]
    pub fn new(session: Uuid, number: u64) -> Self {
        Self { session, number }
    }

    /// Returns whether an event was given this id. The default is no id.
    pub(crate) fn is_given(self) -> bool {
        self.number != 0
    }

    /// Returns the session: a UUID that every bus has for itself. It is the [session of its collector](crate::Collector::session_id),
    /// unless [`Config::session_id`](crate::Config::session_id) sets that one.
    pub fn session(self) -> String {
        self.session.to_string()
    }

    /// Returns the number of the event in its session, from 1.
    pub fn number(self) -> u64 {
        self.number
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.session, self.number)
    }
}

/// Error of a text that is no [`EventId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event id must be a UUID, a colon and a number, got {0:?}")]
pub struct EventIdError(String);

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let parse = || {
            let (session, number) = text.rsplit_once(':')?;
            Some(Self { session: session.parse().ok()?, number: number.parse().ok()? })
        };
        parse().ok_or_else(|| EventIdError(text.to_owned()))
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_nothing_else_is() {
        let id = EventId::new(Uuid::from_u128(7), u64::MAX);
        assert_eq!(id.to_string(), "00000000-0000-0000-0000-000000000007:18446744073709551615");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::from_str::<EventId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        for text in
            ["", "7", ":7", "00000000-0000-0000-0000-000000000007", "run-7:1", "x:18446744073709551616"]
        {
            let error = text.parse::<EventId>().unwrap_err().to_string();
            assert_eq!(error, format!("event id must be a UUID, a colon and a number, got {text:?}"));
        }
    }

    #[test]
    fn ids_sort_by_session_and_number() {
        let id = |session, number| EventId::new(Uuid::from_u128(session), number);
        assert!(id(1, 9) < id(2, 1) && id(2, 1) < id(2, 2));
        assert!(!EventId::default().is_given() && id(0, 1).is_given());
    }
}
