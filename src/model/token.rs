//! Tokens: who may ask over HTTP, and for what.

use super::{FunctionId, Timestamp, TokenId, TokenName};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};

/// What a token may be used for. `commands::scopes` says which command needs which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything: among it functions' settings, deleting functions, and tokens.
    Admin,
    /// Publish versions and point aliases at them; and all that `read` may.
    Deploy,
    /// Invoke functions.
    Invoke,
    /// Look: functions, versions, deployments, logs, metrics, the daemon's state.
    Read,
}

impl Scope {
    /// All, by their names, each with what it allows.
    pub const ALL: [(&str, Self, &str); 4] = [
        ("admin", Self::Admin, "everything: among it functions' settings, deleting functions, and tokens"),
        (
            "deploy",
            Self::Deploy,
            "publish versions, point aliases at them, set variables, remove what nothing refers to; and `read`",
        ),
        ("invoke", Self::Invoke, "invoke functions"),
        ("read", Self::Read, "look: functions, versions, deployments, logs, metrics, the daemon's state"),
    ];

    /// Its name on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Deploy => "deploy",
            Self::Invoke => "invoke",
            Self::Read => "read",
        }
    }

    /// Whether who has this scope may do what needs the other one.
    #[must_use]
    pub fn includes(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Deploy => matches!(needed, Self::Deploy | Self::Read),
            Self::Invoke | Self::Read => self == needed,
        }
    }
}

/// SHA-256 of a secret: what is kept of it.
pub type SecretHash = [u8; 32];

/// A token without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its identity.
    pub id: TokenId,
    /// What the audit trail calls who uses it.
    pub name: TokenName,
    /// What is kept of its secret.
    pub hash: SecretHash,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// The one function that it is for; absent where it is for all.
    pub function: Option<FunctionId>,
    /// Who made it.
    pub actor: Arc<str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as that is written.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Whether a token can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenStatus {
    /// It can.
    Valid,
    /// Its time is over.
    Expired,
    /// Somebody has taken it back.
    Revoked,
}

impl Token {
    /// Whether it can be used at this time.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> TokenStatus {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => TokenStatus::Revoked,
            (None, Some(end)) if end <= now => TokenStatus::Expired,
            _ => TokenStatus::Valid,
        }
    }

    /// Whether it may be used for what needs this scope.
    #[must_use]
    pub fn has(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|it| it.includes(needed))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, scopes, function, expires_at, revoked_at, .. } = self;
        let mut fields = f.debug_struct("Token");
        fields.field("id", id).field("name", name).field("scopes", scopes).field("function", function);
        fields.field("expires_at", expires_at).field("revoked_at", revoked_at).finish_non_exhaustive()
    }
}

/// What a token's secret begins with, so that people and scanners of leaked secrets know one when they see it.
const PREFIX: &str = "lvn_";

/// Bytes of a secret that are random.
pub const SECRET_BYTES: usize = 32;

/// A token's secret: `lvn_` and 43 letters, digits, `-` and `_`. It stands in one answer and in the header of requests,
/// and nowhere else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret of these random bytes.
    #[must_use]
    pub fn new(random: [u8; SECRET_BYTES]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// Reads what somebody has written down; nothing where it cannot be a secret.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let random = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        Some(Self::new(random.try_into().ok()?))
    }

    /// The secret in clear, for whoever is to have it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        Self::hash_of(&self.0)
    }

    /// What would be kept of this text if it were a secret.
    #[must_use]
    pub fn hash_of(text: &str) -> SecretHash {
        Sha256::digest(text).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Compares the hashes, so that the time it takes says nothing about a secret.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_text_and_shows_nowhere() {
        let secret = Secret::new([0xfb; SECRET_BYTES]);
        assert_eq!((secret.reveal().len(), &secret.reveal()[..4]), (47, "lvn_"));
        assert_eq!(Secret::parse(secret.reveal()), Some(secret.clone()));
        assert_ne!(secret, Secret::new([0xfa; SECRET_BYTES]));
        assert_eq!(format!("{secret:?}"), "[redacted]");
        for bad in ["", "lvn_", "lvn_AAAA", &secret.reveal()[4..], &format!("{}A", secret.reveal())] {
            assert_eq!(Secret::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn admin_includes_all_and_deploy_includes_read() {
        use Scope::{Admin, Deploy, Invoke, Read};
        let included = |scope: Scope| Scope::ALL.map(|(_, it, _)| it).into_iter().filter(move |it| scope.includes(*it));
        let cases = [
            (Admin, vec![Admin, Deploy, Invoke, Read]),
            (Deploy, vec![Deploy, Read]),
            (Invoke, vec![Invoke]),
            (Read, vec![Read]),
        ];
        for (scope, expected) in cases {
            assert_eq!(included(scope).collect::<Vec<_>>(), expected, "{scope:?}");
        }
        for (name, scope, _) in Scope::ALL {
            let json = serde_json::to_string(&scope).expect("a unit variant");
            assert_eq!((json, scope.name()), (format!("\"{name}\""), name));
        }
    }
}
