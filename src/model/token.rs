//! Tokens: authentication over HTTP, and what each token allows.

use super::{FunctionId, Timestamp, TokenId, TokenName, words::words};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};

words! {
    /// A permission of a token. `commands::scopes` says which command needs which scope.
    Scope {
        /// Everything, including functions' settings, deleting functions, and tokens.
        Admin = "admin",
        /// Publish versions and point aliases at them; includes `read`.
        Deploy = "deploy",
        /// Invoke functions.
        Invoke = "invoke",
        /// View functions, versions, deployments, logs, metrics and the daemon's state.
        Read = "read",
    }
}

impl Scope {
    /// Returns what the scope allows, as help texts say it.
    #[must_use]
    pub fn allows(self) -> &'static str {
        match self {
            Self::Admin => "everything, including functions' settings, deleting functions, and tokens",
            Self::Deploy => {
                "publish versions, point aliases at them, set variables, clean up unused versions; includes read"
            }
            Self::Invoke => "invoke functions",
            Self::Read => "view functions, versions, deployments, logs, metrics and the daemon's state",
        }
    }

    /// Whether this scope covers commands that need the other one.
    #[must_use]
    pub fn includes(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Deploy => matches!(needed, Self::Deploy | Self::Read),
            Self::Invoke | Self::Read => self == needed,
        }
    }
}

/// SHA-256 of a secret: the only form that is stored.
pub type SecretHash = [u8; 32];

/// A token without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Identity of the token.
    pub id: TokenId,
    /// Name that the audit trail shows for requests with this token.
    pub name: TokenName,
    /// Hash of the secret.
    pub hash: SecretHash,
    /// Permissions of the token.
    pub scopes: Vec<Scope>,
    /// Function the token is limited to; absent for all functions.
    pub function: Option<FunctionId>,
    /// Actor who created it.
    pub actor: Arc<str>,
    /// Creation time.
    pub created_at: Timestamp,
    /// Expiry time.
    pub expires_at: Option<Timestamp>,
    /// Time of the last use, as far as it has been written.
    pub last_used_at: Option<Timestamp>,
    /// Time of revocation.
    pub revoked_at: Option<Timestamp>,
}

words! {
    /// Validity of a token.
    TokenStatus {
        /// The token can be used.
        Valid = "valid",
        /// The token has expired.
        Expired = "expired",
        /// The token was revoked.
        Revoked = "revoked",
    }
}

impl Token {
    /// Returns the validity at this time.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> TokenStatus {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => TokenStatus::Revoked,
            (None, Some(end)) if end <= now => TokenStatus::Expired,
            _ => TokenStatus::Valid,
        }
    }

    /// Whether the token grants this scope.
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

/// Prefix of a token's secret, by which people and scanners for leaked secrets recognise it.
const PREFIX: &str = "lvn_";

/// Random bytes in a secret.
pub const SECRET_BYTES: usize = 32;

/// A token's secret: `lvn_` and 43 letters, digits, `-` and `_`. It appears in the answer that created it and in the
/// header of requests, and is stored nowhere.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenSecret(String);

impl TokenSecret {
    /// Creates a secret from random bytes.
    #[must_use]
    pub fn new(random: [u8; SECRET_BYTES]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// Parses a secret. Returns `None` for a text that cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let random = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        Some(Self::new(random.try_into().ok()?))
    }

    /// Returns the secret in clear.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the hash that is stored.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        Self::hash_of(&self.0)
    }

    /// Returns the hash of any text, as if it were a secret.
    #[must_use]
    pub fn hash_of(text: &str) -> SecretHash {
        Sha256::digest(text).into()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Compares hashes, so that the time it takes reveals nothing about a secret.
impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_text_and_shows_nowhere() {
        let secret = TokenSecret::new([0xfb; SECRET_BYTES]);
        assert_eq!((secret.reveal().len(), &secret.reveal()[..4]), (47, "lvn_"));
        assert_eq!(TokenSecret::parse(secret.reveal()), Some(secret.clone()));
        assert_ne!(secret, TokenSecret::new([0xfa; SECRET_BYTES]));
        assert_eq!(format!("{secret:?}"), "[redacted]");
        for bad in ["", "lvn_", "lvn_AAAA", &secret.reveal()[4..], &format!("{}A", secret.reveal())] {
            assert_eq!(TokenSecret::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn admin_includes_all_and_deploy_includes_read() {
        use Scope::{Admin, Deploy, Invoke, Read};
        let included = |scope: Scope| Scope::ALL.iter().copied().filter(move |it| scope.includes(*it));
        let cases = [
            (Admin, vec![Admin, Deploy, Invoke, Read]),
            (Deploy, vec![Deploy, Read]),
            (Invoke, vec![Invoke]),
            (Read, vec![Read]),
        ];
        for (scope, expected) in cases {
            assert_eq!(included(scope).collect::<Vec<_>>(), expected, "{scope:?}");
        }
    }
}
