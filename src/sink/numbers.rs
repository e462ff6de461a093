//! Numbers in the names of files that a sink has begun or closed, and which of them are its own.
//!
//! Others put files beside those of a sink: `events.jsonl.1`, `events.jsonl.20261128`, `app.8080.log`. A number is ours only if
//! it is written as we write it.

/// The largest number that a file gets. Larger ones of seven digits read as a year and a day (`2026332`), those of
/// eight as a date (`20261128`).
const MAX_NUMBER: u64 = 1_899_999;

/// Reads a number as our files have it: six digits, or seven without a zero at the front, that read as no date.
pub(super) fn parse(digits: &str) -> Option<u64> {
    let number = digits.parse().ok().filter(|number| is_number(*number))?;
    (digits == numbered(number)).then_some(number)
}

pub(super) fn numbered(number: u64) -> String {
    format!("{number:06}")
}

/// Returns whether a file may have that number.
fn is_number(number: u64) -> bool {
    (1..=MAX_NUMBER).contains(&number) && !is_date(number)
}

/// Returns whether a number of six digits reads as a month (`202611`) or a day (`261128`) of the decades in which somebody
/// else may name a file by it.
fn is_date(number: u64) -> bool {
    let (front, middle, last) = (number / 10_000, number / 100 % 100, number % 100);
    let is_month = |month| (1..=12).contains(&month);
    ((19..=20).contains(&front) && is_month(last))
        || ((20..=49).contains(&front) && is_month(middle) && (1..=31).contains(&last))
}

/// Gap above all others from which a number is somebody else's: no sink has begun so many files in between.
pub(super) const MAX_GAP: u64 = 100_000;

/// Returns the number behind `last`.
pub(super) fn next(last: u64) -> Option<u64> {
    (last.checked_add(1)?..=MAX_NUMBER).find(|number| is_number(*number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_numbers_that_the_sink_gives_are_its_own() {
        for own in ["000001", "000012", "010101", "123456", "189912", "999999", "1000000", "1899999"] {
            assert!(parse(own).is_some(), "{own}");
        }
        let others = [
            "",
            "1",
            "12",
            "00001",
            "0000001",
            "000000",
            "+00001",
            "20261128",
            "2026332",
            "202611",
            "261128",
            "1900000",
            "18446744073709551615",
            "18446744073709551616",
            "00000a",
            "000001 ",
        ];
        for other in others {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn every_number_is_followed_by_the_next_that_is_its_own_until_none_is_left() {
        let mut number = 0;
        while let Some(next) = next(number) {
            assert!(next > number && parse(&numbered(next)) == Some(next));
            number = next;
        }
        assert_eq!(number, MAX_NUMBER);
        assert_eq!((next(202_510), next(u64::MAX)), (Some(202_513), None));
    }
}
