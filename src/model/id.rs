//! Identities: a prefix for the kind and a UUIDv7, so that ids sort by creation time.

use super::text::text_form;
use serde::Serialize;
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A text that is not an identity of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not an id of the form {prefix}-<uuid>")]
pub struct IdError {
    found: String,
    prefix: &'static str,
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Creates an identity that sorts after those created before it.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "two new ids differ; a default suggests a fixed value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// Returns the bare UUID, for database columns that imply the kind.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// Restores an identity from [`Self::to_bytes`].
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "-{}"), self.0)
            }
        }

        text_form!($name, IdError, debug);

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "-"))
                    .and_then(|uuid| Uuid::try_parse(uuid).ok())
                    .map(Self)
                    .ok_or_else(|| IdError { found: text.chars().take(64).collect(), prefix: $prefix })
            }
        }
    };
}

identity!(
    /// A function, from its registration on; deleting the function does not free the id.
    FunctionId,
    "func"
);
identity!(
    /// A published version of a function.
    VersionId,
    "version"
);
identity!(
    /// An act that pointed, or tried to point, an alias at a version.
    DeploymentId,
    "deploy"
);
identity!(
    /// A plan that raises a version's share of an alias's calls in steps.
    RolloutId,
    "rollout"
);
identity!(
    /// An invocation of a function: the `execution_id` of the command protocol.
    InvocationId,
    "exec"
);
identity!(
    /// A token for HTTP.
    TokenId,
    "token"
);

/// A worker process, numbered by its pool from 1; numbers are not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form_and_other_kinds_are_refused() {
        let id = FunctionId::new();
        assert_eq!(id.to_string().parse::<FunctionId>(), Ok(id));
        assert_eq!(FunctionId::from_bytes(id.to_bytes()), id);
        assert!(id.to_string().parse::<VersionId>().is_err());
        assert!("func-".parse::<FunctionId>().is_err());
    }
}
