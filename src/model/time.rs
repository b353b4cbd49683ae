//! A point in time in milliseconds, the precision used everywhere.

use super::text::text_form;
use std::{fmt, str::FromStr};

/// Milliseconds since the Unix epoch; as text and on the wire RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Range that RFC 3339 can express, whose years have four digits: from the beginning of the year 0 to the last days of
/// 9999.
const MIN_MS: i64 = -62_167_219_200_000;
const MAX_MS: i64 = 253_402_128_000_000;

impl Timestamp {
    /// Returns the current time of the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }

    /// Returns the time `milliseconds` after the Unix epoch, clamped to the range that RFC 3339 can express.
    #[must_use]
    pub fn from_millis(milliseconds: i64) -> Self {
        Self(milliseconds.clamp(MIN_MS, MAX_MS))
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{timestamp:.3}")
    }
}

text_form!(Timestamp, TimeError, debug);

/// A text that is not a valid time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: use RFC 3339 such as 2026-01-27T10:00:00Z, or an age such as 15m, 2h or 1d")]
pub struct TimeError(String);

impl FromStr for Timestamp {
    type Err = TimeError;

    /// Parses RFC 3339, or an age such as `15m`, which counts back from now.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::from_millis(timestamp.as_millisecond()));
        }
        let age = parse_age(text).ok_or_else(|| TimeError(text.chars().take(64).collect()))?;
        Ok(Self::from_millis(Self::now().0.saturating_sub(age)))
    }
}

/// Parses an age such as `90s`, `15m`, `2h` or `7d` into milliseconds.
#[must_use]
pub fn parse_age(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    Some(i64::from(number) * seconds * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_its_text_form() {
        let timestamp = Timestamp::from_millis(1_769_508_000_123);
        assert_eq!(timestamp.to_string(), "2026-01-27T10:00:00.123Z");
        assert_eq!(timestamp.to_string().parse(), Ok(timestamp));
    }

    #[test]
    fn the_first_and_the_last_have_a_text() {
        for milliseconds in [i64::MIN, i64::MAX] {
            let timestamp = Timestamp::from_millis(milliseconds);
            assert_eq!(timestamp.to_string().parse(), Ok(timestamp));
            assert_eq!(timestamp.to_string().len(), "2026-01-27T10:00:00.123Z".len());
        }
    }

    #[test]
    fn an_age_counts_back_from_now_and_nonsense_is_refused() {
        let hour_ago: Timestamp = "1h".parse().expect("an age");
        let age = Timestamp::now().as_millis() - hour_ago.as_millis();
        assert!((3_600_000..3_700_000).contains(&age), "{age}");
        for bad in ["", "h", "1y", "yesterday", "-5m", "ü"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
