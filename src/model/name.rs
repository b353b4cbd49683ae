//! Names that people choose: functions, version labels, aliases, environments.

use super::text::text_form;
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Longest name of a preview, in bytes: a longer one would leave no room for the function's name in a host label.
const PREVIEW_BYTES_MAX: usize = 48;

/// A text that is not a valid name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{found}` is not valid: use 1 to {bytes_max} of {allowed}")]
pub struct NameError {
    kind: &'static str,
    found: String,
    allowed: &'static str,
    bytes_max: usize,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $allowed:literal, $valid:expr) => {
        name!($(#[$doc])* $name, $kind, $allowed, NAME_BYTES_MAX, $valid);
    };
    ($(#[$doc:meta])* $name:ident, $kind:literal, $allowed:literal, $bytes_max:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if !text.is_empty() && text.len() <= $bytes_max && valid(text) {
                    Ok(Self(text.into()))
                } else {
                    let found = text.chars().take(NAME_BYTES_MAX + 1).collect();
                    Err(NameError { kind: $kind, found, allowed: $allowed, bytes_max: $bytes_max })
                }
            }
        }

        text_form!($name, NameError);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// A function's name, unique among the functions that are not deleted.
    ///
    /// A text that reads as a function id is refused, because commands accept either.
    FunctionName,
    "function name",
    "letters, digits, `_` and `-` (and not the form of an id)",
    |text| text.bytes().all(is_word) && text.parse::<super::FunctionId>().is_err()
);
name!(
    /// A version's label. It names a folder, so `.` and `..` are refused.
    VersionLabel,
    "version label",
    "letters, digits, `.`, `_` and `-` (and not `.` or `..`)",
    |text| text.bytes().all(|it| is_word(it) || it == b'.') && text != "." && text != ".."
);
name!(
    /// A movable name for a version, such as `LIVE`.
    AliasName,
    "alias",
    "letters, digits, `_` and `-`",
    |text| text.bytes().all(is_word)
);
name!(
    /// A set of variables that an alias runs with, such as `production`.
    EnvironmentName,
    "environment",
    "letters, digits, `_` and `-`",
    |text| text.bytes().all(is_word)
);
name!(
    /// A token's name, unique among the tokens that are not revoked.
    ///
    /// A text that reads as a token's id is refused, because commands accept either.
    TokenName,
    "token name",
    "letters, digits, `_` and `-` (and not the form of an id)",
    |text| text.bytes().all(is_word) && text.parse::<super::TokenId>().is_err()
);

name!(
    /// A preview's name. It is part of a host name, so it has the form of a host label, but without `--`, which
    /// separates it from the function's name.
    PreviewName,
    "preview",
    "lower-case letters, digits and single `-` between them",
    PREVIEW_BYTES_MAX,
    |text| {
        text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--")
    }
);

/// Prefix of a preview's alias.
const PREVIEW_PREFIX: &str = "preview-";

impl VersionLabel {
    /// Returns the version number that the label reads as: digits, with or without a `v` before them.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        let digits = self.as_str().strip_prefix(['v', 'V']).unwrap_or(self.as_str());
        digits.parse().ok()
    }
}

impl AliasName {
    /// Alias of an invocation without a qualifier.
    pub const LIVE: &str = "LIVE";

    /// Alias that follows `LIVE` and points at the version before.
    pub const ROLLBACK: &str = "ROLLBACK";

    /// Returns [`Self::LIVE`].
    #[must_use]
    pub fn live() -> Self {
        Self(Self::LIVE.into())
    }

    /// Returns [`Self::ROLLBACK`].
    #[must_use]
    pub fn rollback() -> Self {
        Self(Self::ROLLBACK.into())
    }

    /// Whether this is [`Self::LIVE`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.as_str() == Self::LIVE
    }

    /// Whether this is [`Self::ROLLBACK`].
    #[must_use]
    pub fn is_rollback(&self) -> bool {
        self.as_str() == Self::ROLLBACK
    }

    /// Returns the alias of a preview.
    #[must_use]
    pub fn of_preview(name: &PreviewName) -> Self {
        Self(format!("{PREVIEW_PREFIX}{name}").into())
    }

    /// Returns the preview's name if this is a preview's alias.
    #[must_use]
    pub fn preview(&self) -> Option<PreviewName> {
        self.as_str().strip_prefix(PREVIEW_PREFIX)?.parse().ok()
    }

    /// Returns the environment that the alias runs in unless it is given another.
    #[must_use]
    pub fn environment(&self) -> EnvironmentName {
        EnvironmentName(match self.as_str() {
            "STAGING" => "staging".into(),
            "DEV" => "dev".into(),
            name if name.starts_with(PREVIEW_PREFIX) => return EnvironmentName::preview(),
            _ => return EnvironmentName::production(),
        })
    }
}

impl EnvironmentName {
    /// Returns the environment of `LIVE`.
    #[must_use]
    pub fn production() -> Self {
        Self("production".into())
    }

    /// Returns the environment of previews.
    #[must_use]
    pub fn preview() -> Self {
        Self("preview".into())
    }

    /// Whether this is [`Self::production`].
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.as_str() == "production"
    }

    /// Whether this is a built-in environment.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        ["production", "staging", "dev", "preview"].contains(&self.as_str())
    }

    /// Returns the default alias of this environment: `LIVE` for production, else the name in capitals, such as
    /// `STAGING` or `DEV`.
    #[must_use]
    pub fn alias(&self) -> AliasName {
        if self.is_production() { AliasName::live() } else { AliasName(self.as_str().to_ascii_uppercase().into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_cannot_leave_their_folder() {
        assert!("hello-World_1".parse::<FunctionName>().is_ok());
        for bad in ["", "a b", "a/b", "a:b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
        let id = super::super::FunctionId::new().to_string();
        assert!(id.parse::<FunctionName>().is_err(), "an id as a name would be ambiguous");
        for bad in [".", "..", "a/../b", ""] {
            assert!(bad.parse::<VersionLabel>().is_err(), "{bad}");
        }
        assert!("1.0.0".parse::<VersionLabel>().is_ok());
    }

    #[test]
    fn an_alias_has_its_environment_by_its_name() {
        let cases = [
            ("LIVE", "production"),
            ("ROLLBACK", "production"),
            ("STAGING", "staging"),
            ("DEV", "dev"),
            ("preview-42", "preview"),
            ("preview", "production"),
            ("staging", "production"),
        ];
        for (alias, environment) in cases {
            let alias: AliasName = alias.parse().expect("an alias");
            assert_eq!(alias.environment().as_str(), environment, "{alias}");
        }
    }

    #[test]
    fn an_environment_has_its_alias_and_a_preview_too() {
        for (environment, alias) in [("production", "LIVE"), ("staging", "STAGING"), ("dev", "DEV"), ("qa-2", "QA-2")] {
            let environment: EnvironmentName = environment.parse().expect("an environment");
            assert_eq!(environment.alias().as_str(), alias);
        }
        let name: PreviewName = "pr-42".parse().expect("a preview");
        let alias = AliasName::of_preview(&name);
        assert_eq!((alias.as_str(), alias.environment().as_str()), ("preview-pr-42", "preview"));
        assert_eq!(alias.preview(), Some(name));
        assert_eq!("LIVE".parse::<AliasName>().expect("an alias").preview(), None);
        for bad in ["", "A", "a_b", "-a", "a-", "a--b", "a.b", &"x".repeat(49)] {
            assert!(bad.parse::<PreviewName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_error_says_what_is_allowed() {
        let error = "a b".parse::<FunctionName>().expect_err("a blank is not allowed").to_string();
        assert!(error.contains("`a b`") && error.contains("letters, digits"), "{error}");
        let error = "Bad_X".parse::<PreviewName>().expect_err("capitals are not allowed").to_string();
        let expected = "use 1 to 48 of lower-case letters, digits and single `-` between them";
        assert_eq!(error, format!("preview `Bad_X` is not valid: {expected}"));
    }
}
