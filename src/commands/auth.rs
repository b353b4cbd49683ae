//! Who asks over HTTP: from the secret of a token to what it allows. The command socket asks for no token.
//!
//! [`Authority`] keeps every token in memory, so that a check touches neither SQLite nor a file; what is created or revoked
//! is written first and counts from the moment the command answers. Expiry is looked at with each check.
//!
//! **Why a look-up by hash suffices.** What is compared is the SHA-256 of what the caller has sent. How long a comparison
//! takes may say how far two hashes agree, but nobody can choose a secret whose hash begins as wanted, nor tell a secret
//! from the beginning of its hash; a comparison in constant time would protect nothing more.

use super::{
    Caller,
    failures::{Failures, Verdict},
    scopes::{About, needs},
};
use crate::{
    error::{Error, ErrorCode},
    model::{FunctionId, Scope, Secret, SecretHash, Timestamp, Token, TokenId, TokenName, token::TokenStatus},
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

/// The tokens, and who came with wrong ones.
pub struct Authority {
    known: ArcSwap<HashMap<SecretHash, Known>>,
    failures: Mutex<Failures>,
    /// Held by a command that creates or revokes one, from what it looks at until what it has changed.
    pub(super) changing: Mutex<()>,
}

/// A token and its uses, which go on while the rest is replaced.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) token: Arc<Token>,
    uses: Arc<Uses>,
}

/// When a token was last used, in milliseconds; [`NEVER`] if it was not.
#[derive(Debug)]
struct Uses {
    last: AtomicI64,
    /// What of it is on disk.
    written: AtomicI64,
}

const NEVER: i64 = i64::MIN;

impl Known {
    fn new(token: Token) -> Self {
        let last = token.last_used_at.map_or(NEVER, Timestamp::as_millis);
        let uses = Uses { last: AtomicI64::new(last), written: AtomicI64::new(last) };
        Self { token: Arc::new(token), uses: Arc::new(uses) }
    }

    /// When it was last used, up to now.
    pub(super) fn last_used_at(&self) -> Option<Timestamp> {
        let last = self.uses.last.load(Ordering::Relaxed);
        (last != NEVER).then(|| Timestamp::from_millis(last))
    }
}

/// Why a token is not accepted. The caller is not told: only the daemon's log is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Denied {
    Unknown,
    Expired(TokenName),
    Revoked(TokenName),
}

/// Without the hashes.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("tokens", &self.all()).finish_non_exhaustive()
    }
}

impl Authority {
    /// These tokens.
    #[must_use]
    pub fn new(tokens: Vec<Token>) -> Self {
        let known = tokens.into_iter().map(|it| (it.hash, Known::new(it))).collect();
        Self { known: ArcSwap::from_pointee(known), failures: Mutex::default(), changing: Mutex::default() }
    }

    /// What the token with this secret allows.
    ///
    /// `UNAUTHORIZED` says the same of an unknown, an expired and a revoked one; the daemon's log says which.
    pub fn check(&self, bearer: &str, now: Timestamp) -> Result<Grant, Error> {
        self.find(bearer, now).map_err(|denied| {
            denied.log(None);
            unauthorized()
        })
    }

    /// The same for a caller from a network, who cannot try as often as it likes: `OVERLOADED` with `retry_after_ms` once
    /// there were too many wrong tokens in a minute.
    pub fn check_from(&self, peer: IpAddr, bearer: &str, now: (Timestamp, Instant)) -> Result<Grant, Error> {
        let denied = match self.find(bearer, now.0) {
            Ok(grant) => return Ok(grant),
            Err(denied) => denied,
        };
        let verdict = self.failures.lock().count(peer, now.1);
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

    /// What the token with this secret allows, for a caller that was not asked for one. A wrong one is neither counted nor
    /// logged: what the caller has sent may be meant for somebody else.
    pub fn recognise(&self, bearer: &str, now: Timestamp) -> Option<Grant> {
        self.find(bearer, now).ok()
    }

    fn find(&self, bearer: &str, now: Timestamp) -> Result<Grant, Denied> {
        let known = self.known.load();
        let found = known.get(&Secret::hash_of(bearer)).ok_or(Denied::Unknown)?;
        match found.token.status(now) {
            TokenStatus::Valid => {
                found.uses.last.fetch_max(now.as_millis(), Ordering::Relaxed);
                Ok(Grant { token: Arc::clone(&found.token) })
            }
            TokenStatus::Expired => Err(Denied::Expired(found.token.name.clone())),
            TokenStatus::Revoked => Err(Denied::Revoked(found.token.name.clone())),
        }
    }

    /// Takes in a token as it is on disk now. Its uses go on.
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

    /// Every token there was, in the order in which they were made.
    pub(super) fn all(&self) -> Vec<Known> {
        let mut all: Vec<Known> = self.known.load().values().cloned().collect();
        all.sort_by_key(|it| it.token.id);
        all
    }

    /// What was used since the last time that uses were written.
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
    let message = "the token is not valid: it is unknown, expired or revoked; make one with `levain token create`";
    Error::new(ErrorCode::Unauthorized, message)
}

/// `UNAUTHORIZED` for a caller that shows no token.
#[must_use]
pub fn token_missing() -> Error {
    let message = "a token is needed: send `Authorization: Bearer lvn_…`; `levain token create` makes one";
    Error::new(ErrorCode::Unauthorized, message)
}

/// What a valid token allows, at the time of its check.
#[derive(Debug, Clone)]
pub struct Grant {
    token: Arc<Token>,
}

impl Grant {
    /// As the audit trail names who has the token.
    #[must_use]
    pub fn caller(&self) -> Caller {
        // Only the scope `admin` may name files, and it may read what the daemon may.
        Caller {
            actor: format!("token:{}", self.token.name).into(),
            is_admin: self.token.has(Scope::Admin),
            reads_as: None,
        }
    }

    /// What its token is called.
    #[must_use]
    pub fn token_name(&self) -> &TokenName {
        &self.token.name
    }

    /// `FORBIDDEN` unless the token is for looking at all there is.
    pub fn may_read(&self) -> Result<(), Error> {
        self.has(Scope::Read, "this page")?;
        if self.token.function.is_some() { Err(self.elsewhere()) } else { Ok(()) }
    }

    /// `FORBIDDEN` unless the token is for this request.
    pub fn allows(&self, request: &Request, router: &Router) -> Result<(), Error> {
        let needs = needs(request);
        self.has(needs.scope, request.name())?;
        match (self.token.function, needs.about) {
            (None, _) => Ok(()),
            (Some(_), About::All) => Err(self.elsewhere()),
            (Some(own), About::Function(name)) => {
                // The name may have gone to another function since, so the router says whose it is.
                let found = router::split(name, None).and_then(|(name, _)| router.function(name));
                if found.is_ok_and(|it| it.function.id == own) { Ok(()) } else { Err(self.elsewhere()) }
            }
        }
    }

    /// `FORBIDDEN` unless the token is for calls of this function.
    pub fn may_invoke(&self, function: FunctionId) -> Result<(), Error> {
        self.has(Scope::Invoke, "this call")?;
        match self.token.function {
            Some(own) if own != function => Err(self.elsewhere()),
            _ => Ok(()),
        }
    }

    /// Whether the token is for calls of this function or for its logs, and so for the details of a call that failed. Where
    /// the function is not known it must be for all.
    #[must_use]
    pub fn may_see_failures(&self, function: Option<FunctionId>) -> bool {
        let is_in_scope = self.token.has(Scope::Invoke) || self.token.has(Scope::Read);
        is_in_scope && self.token.function.is_none_or(|own| function == Some(own))
    }

    /// `FORBIDDEN` unless the token is for deployments of some function.
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

    /// It does not say whether there is anything elsewhere.
    fn elsewhere(&self) -> Error {
        let message =
            format!("the token `{}` is for one function, and this is not about that one alone", self.token.name);
        Error::new(ErrorCode::Forbidden, message).with_details(json!({ "function_id": self.token.function }))
    }
}

#[cfg(test)]
mod tests;
