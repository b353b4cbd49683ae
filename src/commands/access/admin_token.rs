//! The first token, for users who can read the data directory. A start that finds none creates it.
//!
//! The file is written before the row, so that no row exists whose secret is lost. A start that finds the file of an
//! interrupted start, but no row for it, writes the row.

use super::tokens::new_secret;
use crate::{
    model::{Scope, Timestamp, Token, TokenId, TokenName, TokenSecret, token::TokenStatus},
    store::{Store, StoreError},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Name of the token's file in the data directory.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Reason why there is no first token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The token's file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates the first token, unless a valid token may do everything or the file shows that there was one. Blocks.
///
/// To revoke the token without a successor, leave the file. To replace a lost token, delete the file and restart the
/// daemon.
pub fn ensure_admin_token(store: &Store, data_dir: &Path, now: Timestamp) -> Result<(), AdminTokenError> {
    let tokens = store.tokens()?;
    let is_admin = |it: &Token| it.status(now) == TokenStatus::Valid && it.has(Scope::Admin) && it.function.is_none();
    if tokens.iter().any(is_admin) {
        return Ok(());
    }
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    let at = |source| AdminTokenError::File { path: path.clone(), source };
    let secret = match fs::read_to_string(&path) {
        Ok(text) => {
            match TokenSecret::parse(text.trim()).filter(|it| tokens.iter().all(|token| token.hash != it.hash())) {
                Some(secret) => secret,
                None => {
                    tracing::warn!(
                        file = %path.display(),
                        "no token with the scope admin is valid; delete the file for a new one at the next start, or use \
                         `levain token create`"
                    );
                    return Ok(());
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = new_secret().map_err(|error| at(error.into()))?;
            write(data_dir, &path, &secret).map_err(at)?;
            secret
        }
        Err(error) => return Err(at(error)),
    };
    let name = free_name(&tokens);
    store.insert_token(&Token {
        id: TokenId::new(),
        name: name.clone(),
        hash: secret.hash(),
        scopes: vec![Scope::Admin],
        function: None,
        actor: "daemon".into(),
        created_at: now,
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    })?;
    tracing::info!(token = %name, file = %path.display(), "created a token with the scope admin");
    Ok(())
}

/// Writes the file completely or not at all, for its owner only, and never over an existing one.
fn write(data_dir: &Path, path: &Path, secret: &TokenSecret) -> io::Result<()> {
    // A temporary file has mode 0600 from its creation on.
    let mut file = tempfile::Builder::new().prefix(".admin").tempfile_in(data_dir)?;
    writeln!(file, "{}", secret.reveal())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(data_dir)?.sync_all()
}

/// Finds a free name: `admin`, or one with a number if an expired token still has that name.
fn free_name(tokens: &[Token]) -> TokenName {
    let names = std::iter::once("admin".to_owned()).chain((2..).map(|number| format!("admin-{number}")));
    let is_free = |name: &TokenName| tokens.iter().all(|it| it.revoked_at.is_some() || it.name != *name);
    names.filter_map(|it| it.parse().ok()).find(is_free).expect("one of endlessly many names is free")
}
