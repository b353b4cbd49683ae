//! The table `tokens`.

use super::value::{Columns, Json, Millis, Text};
use super::{Store, StoreError};
use crate::model::{Timestamp, Token, TokenId};
use rusqlite::{Row, params};

impl Store {
    /// Returns every token ever created, in the order of creation.
    pub fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.read(|it| {
            let sql = "SELECT id, name, secret_hash, scopes, function_id, actor, created_at, expires_at, last_used_at, \
                 revoked_at FROM tokens ORDER BY id";
            it.prepare_cached(sql)?.query_and_then([], read)?.collect()
        })
    }

    /// Adds a token; its name must be free ([`StoreError::TokenNameTaken`]).
    pub fn insert_token(&self, token: &Token) -> Result<(), StoreError> {
        self.write(|it| {
            let mut taken = it.prepare_cached("SELECT 1 FROM tokens WHERE name = ?1 AND revoked_at IS NULL")?;
            if taken.exists([Text(&token.name)])? {
                return Err(StoreError::TokenNameTaken(token.name.clone()));
            }
            let mut statement = it.prepare_cached(
                "INSERT INTO tokens (id, name, secret_hash, scopes, function_id, actor, created_at, expires_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            statement.execute(params![
                Text(token.id),
                Text(&token.name),
                token.hash,
                Json(&token.scopes),
                token.function.map(Text),
                &*token.actor,
                Millis(token.created_at),
                token.expires_at.map(Millis),
            ])?;
            Ok(())
        })
    }

    /// Revokes a token permanently; a revoked token keeps the record of its first revocation.
    pub fn revoke_token(&self, id: TokenId, actor: &str, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            let sql = "UPDATE tokens SET revoked_at = ?2, revoked_by = ?3 WHERE id = ?1 AND revoked_at IS NULL";
            let changed = it.prepare_cached(sql)?.execute(params![Text(id), Millis(now), actor])?;
            let mut there = it.prepare_cached("SELECT 1 FROM tokens WHERE id = ?1")?;
            if changed == 1 || there.exists([Text(id)])? { Ok(()) } else { Err(StoreError::TokenNotFound(id)) }
        })
    }

    /// Records when tokens were last used.
    pub fn note_token_uses(&self, uses: &[(TokenId, Timestamp)]) -> Result<(), StoreError> {
        self.write(|it| {
            // A later use that is already recorded stays.
            let sql = "UPDATE tokens SET last_used_at = MAX(IFNULL(last_used_at, ?2), ?2) WHERE id = ?1";
            let mut statement = it.prepare_cached(sql)?;
            uses.iter().try_for_each(|(id, at)| Ok(statement.execute(params![Text(*id), Millis(*at)]).map(drop)?))
        })
    }
}

fn read(row: &Row<'_>) -> Result<Token, StoreError> {
    let columns = Columns { table: "tokens", row };
    let time = |column| -> Result<Option<Timestamp>, StoreError> {
        Ok(columns.plain::<Option<Millis>>(column)?.map(|it| it.0))
    };
    Ok(Token {
        id: columns.text("id")?,
        name: columns.text("name")?,
        hash: columns.plain("secret_hash")?,
        scopes: columns.json("scopes")?,
        function: columns.text_or_null("function_id")?,
        actor: columns.plain::<String>("actor")?.into(),
        created_at: columns.time("created_at")?,
        expires_at: time("expires_at")?,
        last_used_at: time("last_used_at")?,
        revoked_at: time("revoked_at")?,
    })
}
