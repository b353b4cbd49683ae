//! Authentication over HTTP: from the secret of a token to what the token allows. The command socket needs no token.
//!
//! [`Authority`] keeps every token in memory, so that a check touches neither SQLite nor a file. A created or revoked
//! token is written first and counts from the moment the command answers. Each check looks at the expiry.
//!
//! **Why a look-up by hash suffices.** The compared value is the SHA-256 of what the caller has sent. The time of a
//! comparison may reveal how far two hashes agree, but nobody can choose a secret whose hash begins as wanted, nor
//! derive a secret from the beginning of its hash. A comparison in constant time would protect nothing more.

use super::{
    rate_limit::{Verdict, WrongTokens},
    scopes::{About, needs},
};
use crate::{
    commands::Caller,
    error::{Error, ErrorCode},
    model::{FunctionId, Scope, SecretHash, Timestamp, Token, TokenId, TokenName, TokenSecret, token::TokenStatus},
    protocol::ipc::Request,
    router::{self, Router},
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

/// All tokens, and the addresses that sent wrong ones.
pub struct Authority {
    known: ArcSwap<HashMap<SecretHash, Known>>,
    wrong_tokens: Mutex<WrongTokens>,
    /// Held by a command that creates or revokes a token, from its first look to its last change.
    pub(super) changing: Mutex<()>,
}

/// A token and its uses, which go on while the token is replaced.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) token: Arc<Token>,
    uses: Arc<Uses>,
}

/// Time of a token's last use, in milliseconds; [`NEVER`] if it was not used.
#[derive(Debug)]
struct Uses {
    last: AtomicI64,
    /// Latest use that is on disk.
    written: AtomicI64,
}

const NEVER: i64 = i64::MIN;

impl Known {
    fn new(token: Token) -> Self {
        let last = token.last_used_at.map_or(NEVER, Timestamp::as_millis);
        let uses = Uses { last: AtomicI64::new(last), written: AtomicI64::new(last) };
        Self { token: Arc::new(token), uses: Arc::new(uses) }
    }

    /// Time of the last use so far.
    pub(super) fn last_used_at(&self) -> Option<Timestamp> {
        let last = self.uses.last.load(Ordering::Relaxed);
        (last != NEVER).then(|| Timestamp::from_millis(last))
    }
}

/// Reason to refuse a token. Only the daemon's log shows it, not the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Denied {
    Unknown,
    Expired(TokenName),
    Revoked(TokenName),
}

/// Leaves the hashes out.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("tokens", &self.all()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Creates an authority over these tokens.
    #[must_use]
    pub fn new(tokens: Vec<Token>) -> Self {
        let known = tokens.into_iter().map(|it| (it.hash, Known::new(it))).collect();
        Self { known: ArcSwap::from_pointee(known), wrong_tokens: Mutex::default(), changing: Mutex::default() }
    }

    /// Returns what the token with this secret allows.
    ///
    /// `UNAUTHORIZED` does not tell unknown, expired and revoked tokens apart; the daemon's log does.
    pub fn check(&self, bearer: &str, now: Timestamp) -> Result<TokenRights, Error> {
        self.find(bearer, now).map_err(|denied| {
            denied.log(None);
            unauthorized()
        })
    }

    /// Like [`Self::check`], for a caller from a network, whose tries are limited: `OVERLOADED` with `retry_after_ms`
    /// after too many wrong tokens in a minute.
    pub fn check_from(&self, peer: IpAddr, bearer: &str, now: (Timestamp, Instant)) -> Result<TokenRights, Error> {
        let denied = match self.find(bearer, now.0) {
            Ok(grant) => return Ok(grant),
            Err(denied) => denied,
        };
        let verdict = self.wrong_tokens.lock().count(peer, now.1);
        match verdict {
            Verdict::Wrong { is_last } => {
                denied.log(Some(peer));
                if is_last {
                    tracing::warn!(%peer, "too many wrong tokens: further ones within a minute are not logged");
                }
                Err(unauthorized())
            }
            Verdict::TooMany { retry_after } => {
                let seconds = retry_after.as_secs() + 1;
                let message = format!("too many wrong tokens from this address: try again in {seconds} s");
                let details = json!({ "retry_after_ms": retry_after.as_millis() as u64 });
                Err(Error::new(ErrorCode::Overloaded, message).with_details(details))
            }
        }
    }

    /// Returns what the token with this secret allows, for a request that needs no token. A wrong token is neither
    /// counted nor logged: it may be meant for another receiver.
    pub fn recognise(&self, bearer: &str, now: Timestamp) -> Option<TokenRights> {
        self.find(bearer, now).ok()
    }

    fn find(&self, bearer: &str, now: Timestamp) -> Result<TokenRights, Denied> {
        let known = self.known.load();
        let found = known.get(&TokenSecret::hash_of(bearer)).ok_or(Denied::Unknown)?;
        match found.token.status(now) {
            TokenStatus::Valid => {
                found.uses.last.fetch_max(now.as_millis(), Ordering::Relaxed);
                Ok(TokenRights { token: Arc::clone(&found.token) })
            }
            TokenStatus::Expired => Err(Denied::Expired(found.token.name.clone())),
            TokenStatus::Revoked => Err(Denied::Revoked(found.token.name.clone())),
        }
    }

    /// Takes in the present state of a token. Its uses go on.
    pub(super) fn put(&self, token: Token) -> Known {
        let fresh = Known::new(token);
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            let entry = known.entry(fresh.token.hash).or_insert_with(|| fresh.clone());
            entry.token = Arc::clone(&fresh.token);
            known
        });
        self.known.load().get(&fresh.token.hash).cloned().unwrap_or(fresh)
    }

    /// All tokens ever created, in the order of their creation.
    pub(super) fn all(&self) -> Vec<Known> {
        let mut all: Vec<Known> = self.known.load().values().cloned().collect();
        all.sort_by_key(|it| it.token.id);
        all
    }

    /// Uses since the last time that uses were written.
    pub(super) fn unwritten(&self) -> Vec<(TokenId, Timestamp)> {
        let known = self.known.load();
        let unwritten = |it: &&Known| it.uses.last.load(Ordering::Relaxed) > it.uses.written.load(Ordering::Relaxed);
        known.values().filter(unwritten).filter_map(|it| Some((it.token.id, it.last_used_at()?))).collect()
    }

    /// Notes that these uses are on disk.
    pub(super) fn written(&self, uses: &[(TokenId, Timestamp)]) {
        let uses: HashMap<_, _> = uses.iter().copied().collect();
        for known in self.known.load().values() {
            if let Some(at) = uses.get(&known.token.id) {
                known.uses.written.fetch_max(at.as_millis(), Ordering::Relaxed);
            }
        }
    }
}

impl Denied {
    fn log(&self, peer: Option<IpAddr>) {
        let peer = peer.map_or_else(|| "none".to_owned(), |it| it.to_string());
        match self {
            Self::Unknown => tracing::warn!(peer, "a token is refused: it is unknown"),
            Self::Expired(name) => tracing::warn!(peer, token = %name, "a token is refused: it has expired"),
            Self::Revoked(name) => tracing::warn!(peer, token = %name, "a token is refused: it is revoked"),
        }
    }
}

fn unauthorized() -> Error {
    let message = "the token is not valid: it is unknown, expired or revoked; create one with `levain token create`";
    Error::new(ErrorCode::Unauthorized, message)
}

/// `UNAUTHORIZED` for a caller without a token.
#[must_use]
pub fn token_missing() -> Error {
    let message = "a token is needed: send `Authorization: Bearer lvn_…`; `levain token create` creates one";
    Error::new(ErrorCode::Unauthorized, message)
}

/// Rights of a valid token, at the time of its check.
#[derive(Debug, Clone)]
pub struct TokenRights {
    token: Arc<Token>,
}

impl TokenRights {
    /// The token's holder as the audit trail names it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        // Only the scope `admin` may name files, and it may read what the daemon may.
        Caller::new(format!("token:{}", self.token.name), self.token.has(Scope::Admin))
    }

    /// Name of the token.
    #[must_use]
    pub fn token_name(&self) -> &TokenName {
        &self.token.name
    }

    /// `FORBIDDEN` unless the token may read everything.
    pub fn may_read(&self) -> Result<(), Error> {
        self.has(Scope::Read, "this page")?;
        if self.token.function.is_some() { Err(self.elsewhere()) } else { Ok(()) }
    }

    /// `FORBIDDEN` unless the token allows this request.
    pub fn allows(&self, request: &Request, router: &Router) -> Result<(), Error> {
        let needs = needs(request);
        self.has(needs.scope, request.name())?;
        match (self.token.function, needs.about) {
            (None, _) => Ok(()),
            (Some(_), About::All) => Err(self.elsewhere()),
            (Some(own), About::Function(name)) => {
                // The name may belong to another function by now, so the router resolves it.
                let found = router::split(name, None).and_then(|(name, _)| router.function(name));
                if found.is_ok_and(|it| it.function.id == own) { Ok(()) } else { Err(self.elsewhere()) }
            }
        }
    }

    /// `FORBIDDEN` unless the token may invoke this function.
    pub fn may_invoke(&self, function: FunctionId) -> Result<(), Error> {
        self.has(Scope::Invoke, "this call")?;
        match self.token.function {
            Some(own) if own != function => Err(self.elsewhere()),
            _ => Ok(()),
        }
    }

    /// Whether the token may invoke this function or read its logs, and so see the details of a failed invocation. If
    /// the function is not known, the token must be for all.
    #[must_use]
    pub fn may_see_failures(&self, function: Option<FunctionId>) -> bool {
        let is_in_scope = self.token.has(Scope::Invoke) || self.token.has(Scope::Read);
        is_in_scope && self.token.function.is_none_or(|own| function == Some(own))
    }

    /// `FORBIDDEN` unless the token may deploy some function.
    pub fn may_deploy(&self) -> Result<(), Error> {
        self.has(Scope::Deploy, "a deploy")
    }

    fn has(&self, needed: Scope, what: &str) -> Result<(), Error> {
        if self.token.has(needed) {
            return Ok(());
        }
        let own: Vec<&str> = self.token.scopes.iter().map(|it| it.name()).collect();
        let (name, needed, has) = (&self.token.name, needed.name(), own.join(", "));
        let message = format!("{what} needs a token with the scope `{needed}`; `{name}` has {has}");
        Err(Error::new(ErrorCode::Forbidden, message).with_details(json!({ "needed": needed, "scopes": own })))
    }

    /// The refusal does not say whether the other function exists.
    fn elsewhere(&self) -> Error {
        let message =
            format!("the token `{}` is for one function, and this request is not only about that one", self.token.name);
        Error::new(ErrorCode::Forbidden, message).with_details(json!({ "function_id": self.token.function }))
    }
}

#[cfg(test)]
mod tests;
