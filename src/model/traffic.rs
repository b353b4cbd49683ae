//! Division of an alias's calls between two versions.

use super::{VersionId, text::text_form};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A share of an alias's calls in whole percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct Percent(u8);

impl Percent {
    /// No calls.
    pub const NONE: Self = Self(0);
    /// Every call.
    pub const ALL: Self = Self(100);

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// Returns the remaining share: 100 % minus this one.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(100 - self.0)
    }

    /// Whether a uniformly random point of the range 0.0 to 1.0 falls into the share.
    #[must_use]
    pub fn covers(self, point: f64) -> bool {
        point * 100.0 < f64::from(self.0)
    }
}

/// A number that is not a valid share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share is a whole number of percent from 0 to 100, not {0}")]
pub struct PercentError(u32);

impl TryFrom<u32> for Percent {
    type Error = PercentError;

    fn try_from(percent: u32) -> Result<Self, PercentError> {
        match u8::try_from(percent) {
            Ok(percent @ 0..=100) => Ok(Self(percent)),
            _ => Err(PercentError(percent)),
        }
    }
}

impl From<Percent> for u32 {
    fn from(percent: Percent) -> Self {
        percent.0.into()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// Second version of an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Identity of the version.
    pub version_id: VersionId,
    /// Share of calls; the alias's main version gets the rest.
    pub weight: Percent,
}

/// Part of a request that identifies its caller, so that each caller stays with one of the two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// Value of this request header.
    Header(String),
    /// Value of this cookie.
    Cookie(String),
}

/// A text that names neither a header nor a cookie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a header nor a cookie: use `header:<name>` or `cookie:<name>`")]
pub struct StickyError(String);

/// Longest name of a header or cookie, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Whether a text can be the name of a header or cookie (a `token` of RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_allowed = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

impl FromStr for Sticky {
    type Err = StickyError;

    fn from_str(text: &str) -> Result<Self, StickyError> {
        match text.split_once(':') {
            Some(("header", name)) if is_token(name) => Ok(Self::Header(name.to_owned())),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.to_owned())),
            _ => Err(StickyError(text.chars().take(NAME_BYTES_MAX + 8).collect())),
        }
    }
}

text_form!(Sticky, StickyError);

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_percent() {
        assert_eq!(Percent::try_from(10).map(Percent::rest), Percent::try_from(90));
        assert_eq!(Percent::try_from(101), Err(PercentError(101)));
        assert_eq!(Percent::try_from(300).map_err(|it| it.to_string().contains("300")), Err(true));
    }

    #[test]
    fn nothing_covers_no_point_and_all_covers_each() {
        for point in [0.0, 0.099, 0.5, 0.999_999] {
            assert!(!Percent::NONE.covers(point) && Percent::ALL.covers(point));
        }
        let ten = Percent(10);
        assert!(ten.covers(0.099) && !ten.covers(0.1));
    }

    #[test]
    fn a_header_and_a_cookie_can_be_named() {
        for text in ["header:X-User", "cookie:session"] {
            assert_eq!(text.parse::<Sticky>().map(|it| it.to_string()), Ok(text.to_owned()));
        }
        for bad in
            ["", "X-User", "header:", "header:a b", "query:x", "cookie:a;b", &format!("header:{}", "x".repeat(65))]
        {
            assert!(bad.parse::<Sticky>().is_err(), "{bad}");
        }
    }
}
