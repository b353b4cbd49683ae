//! Arguments that several commands share, and the parsers of single values.

use crate::model::{AliasName, Percent, time::parse_age};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// An alias of a function.
#[derive(Debug, Args)]
pub(super) struct OfAlias {
    /// The function's name or id
    pub(super) name: String,
    /// The alias
    #[arg(long, value_name = "NAME", default_value = AliasName::LIVE)]
    pub(super) alias: String,
}

/// Reason for a change.
#[derive(Debug, Args)]
pub(super) struct Reason {
    /// Reason for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// Options of commands that move an alias.
#[derive(Debug, Args)]
pub(super) struct Move {
    /// Reason for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Check everything, move nothing, and print what would happen
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Data directory, for commands that work without a daemon.
#[derive(Debug, Args)]
pub(super) struct DataDir {
    /// The daemon's data directory [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    /// The option as a configuration key.
    pub(super) fn flag(&self) -> (&'static str, Option<String>) {
        ("daemon.data_dir", self.data_dir.as_ref().map(|it| it.display().to_string()))
    }
}

/// Parses a header, `Name: value`.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is `Name: value`")?;
    let (name, value) = (name.trim(), value.trim());
    http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a valid header name"))?;
    http::HeaderValue::from_str(value).map_err(|_| format!("`{value}` is not a valid header value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses a query parameter, `name=value`; the value may be empty.
pub(super) fn parse_query(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a query parameter is `name=value`".into()),
    }
}

/// Parses the duration of a measurement in seconds; fractions are allowed.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds =
        text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok().filter(|it| (0.01..=86_400.0).contains(it));
    let duration = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
    duration.ok_or_else(|| "a duration is a number of seconds from 0.01 to 86400".into())
}

/// Parses a time span with its unit, in whole seconds.
pub(super) fn parse_span(text: &str) -> Result<u32, String> {
    let seconds = parse_age(text).and_then(|it| u32::try_from(it / 1_000).ok());
    seconds.ok_or_else(|| "a time span has a unit: 30s, 5m, 2h or 1d".into())
}

/// Parses a time span with its unit, in milliseconds.
pub(super) fn parse_milliseconds(text: &str) -> Result<u32, String> {
    let milliseconds = match text.strip_suffix("ms") {
        Some(number) => number.trim().parse().ok(),
        None => parse_age(text).and_then(|it| u32::try_from(it).ok()),
    };
    milliseconds.ok_or_else(|| "a time span has a unit: 200ms, 2s or 1m".into())
}

/// Parses a share in percent, with or without its sign.
pub(super) fn parse_percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end().parse::<u32>();
    let number = number.map_err(|_| "a share is a whole number of percent from 0 to 100".to_owned())?;
    Percent::try_from(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> Result<(String, String), String> {
        Ok((name.to_owned(), value.to_owned()))
    }

    #[test]
    fn headers_are_split_at_the_first_colon_and_checked() {
        assert_eq!(parse_header("Host: a:80"), pair("Host", "a:80"));
        assert_eq!(parse_header("x-empty:"), pair("x-empty", ""));
        for bad in ["no colon", ": value", "a b: c", "x: a\nb"] {
            assert!(parse_header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn query_parameters_keep_everything_after_the_first_equals_sign() {
        assert_eq!(parse_query("a=b=c"), pair("a", "b=c"));
        assert_eq!(parse_query("a="), pair("a", ""));
        assert!(parse_query("a").is_err() && parse_query("=b").is_err());
    }

    #[test]
    fn seconds_may_have_a_fraction_and_a_unit() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("30s"), Ok(Duration::from_secs(30)));
        for bad in ["0", "-1", "NaN", "1e9", "x"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_span_needs_its_unit() {
        assert_eq!(["200ms", "2s", "1m"].map(parse_milliseconds), [Ok(200), Ok(2_000), Ok(60_000)]);
        assert_eq!(["90s", "5m", "2h", "1d"].map(parse_span), [Ok(90), Ok(300), Ok(7_200), Ok(86_400)]);
        for bad in ["", "200", "-1ms", "ms", "1.5s"] {
            assert!(parse_milliseconds(bad).is_err(), "{bad}");
        }
        let error = parse_span("60").expect_err("sixty of what");
        assert!(error.contains("30s, 5m, 2h"), "{error}");
    }

    #[test]
    fn a_share_is_read_with_its_sign_or_without() {
        assert_eq!(parse_percent("10"), parse_percent("10%"));
        assert_eq!(parse_percent("7 %"), Percent::try_from(7).map_err(|error| error.to_string()));
        assert!(["101", "-1", "x", "1.5", "%", ""].iter().all(|it| parse_percent(it).is_err()));
    }
}
