//! CREATE_TOKEN, LIST_TOKENS and REVOKE_TOKEN.

use super::auth::Known;
use crate::{
    commands::{
        Caller, Command, Context,
        page::{Asked, PAGE_MAX, Page},
    },
    error::{Error, ErrorCode},
    model::{
        Timestamp, Token, TokenId, TokenName, TokenSecret,
        time::parse_age,
        token::{SECRET_BYTES, TokenStatus},
    },
    protocol::message::{
        CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest, TokenInfo,
    },
};
use std::sync::Arc;

/// Maximum valid tokens.
const TOKENS_MAX: usize = 1_000;

/// Creates a random secret.
pub(super) fn new_secret() -> Result<TokenSecret, getrandom::Error> {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random)?;
    Ok(TokenSecret::new(random))
}

impl Command for CreateTokenRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<CreateTokenResponse, Error> {
        let now = Timestamp::now();
        let name: TokenName = self.name.parse()?;
        let mut scopes = self.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(Error::invalid("a token needs a scope: name admin, deploy, invoke or read"));
        }
        let expires_at = expiry(self.expires_in.as_deref(), self.expires_at, now)?;
        let function = match &self.function_id {
            Some(function) => Some(context.router.function(function)?.function.id),
            None => None,
        };
        let secret = new_secret().map_err(Error::internal)?;
        let (hash, actor) = (secret.hash(), Arc::clone(&caller.actor));
        let (id, created_at) = (TokenId::new(), now);
        let token = Token {
            id,
            name,
            hash,
            scopes,
            function,
            actor,
            created_at,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        let owner = Arc::clone(context);
        context
        .to_its_end(async move {
            let made = owner.blocking(move |context| insert(context, token)).await?;
            tracing::info!(token = %made.token.name, id = %made.token.id, actor = &*made.token.actor, "token created");
            Ok(CreateTokenResponse { token: secret, info: info(&owner, &made, now) })
        })
        .await
    }
}

fn insert(context: &Context, token: Token) -> Result<Known, Error> {
    let _changing = context.authority.changing.lock();
    let now = token.created_at;
    let valid = context.authority.all().iter().filter(|it| it.token.status(now) == TokenStatus::Valid).count();
    if valid >= TOKENS_MAX {
        let message = format!("there are already {valid} valid tokens, the maximum: revoke some first");
        return Err(Error::new(ErrorCode::Conflict, message));
    }
    context.store.insert_token(&token)?;
    Ok(context.authority.put(token))
}

fn expiry(after: Option<&str>, at: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let end = match (after, at) {
        (Some(_), Some(_)) => return Err(Error::invalid("give `expires_in` or `expires_at`, not both")),
        (None, at) => at,
        (Some(after), None) => {
            let age = parse_age(after).ok_or_else(|| {
                Error::invalid(format!("expires_in `{after}` is not a time span such as 90s, 15m, 12h or 30d"))
            })?;
            Some(Timestamp::from_millis(now.as_millis().saturating_add(age)))
        }
    };
    match end {
        Some(end) if end <= now => Err(Error::invalid(format!("the token would have expired already, at {end}"))),
        end => Ok(end),
    }
}

fn info(context: &Context, known: &Known, now: Timestamp) -> TokenInfo {
    let token = &known.token;
    TokenInfo {
        token_id: token.id,
        name: token.name.to_string(),
        scopes: token.scopes.clone(),
        function: token.function.and_then(|id| Some(context.router.by_id(id).ok()?.function.name.to_string())),
        function_id: token.function,
        status: token.status(now),
        actor: token.actor.to_string(),
        created_at: token.created_at,
        expires_at: token.expires_at,
        last_used_at: known.last_used_at(),
        revoked_at: token.revoked_at,
    }
}

impl Command for ListTokensRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<ListTokensResponse, Error> {
        let asked = Asked { limit: self.limit, offset: self.offset, cursor: self.cursor.as_deref() };
        let page = Page::<TokenId>::new(context, "tokens", &asked, (PAGE_MAX, PAGE_MAX))?;
        let now = Timestamp::now();
        let mut tokens = context.authority.all();
        tokens.retain(|it| self.all || it.token.status(now) == TokenStatus::Valid);
        let is_behind = |it: &&Known| page.after.is_none_or(|after| it.token.id > after);
        let rows = tokens.iter().filter(is_behind).skip(self.offset.unwrap_or(0) as usize);
        let (rows, next_cursor) = page.fill(rows, |it| it.token.id, |it| info(context, it, now));
        Ok(ListTokensResponse { tokens: rows, total: tokens.len() as u64, next_cursor })
    }
}

impl Command for RevokeTokenRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<TokenInfo, Error> {
        let (owner, actor) = (Arc::clone(context), Arc::clone(&caller.actor));
        context
            .to_its_end(async move {
                let by = Arc::clone(&actor);
                let revoked = owner
                    .blocking(move |context| {
                        let _changing = context.authority.changing.lock();
                        let mut token = Token::clone(&named(&context.authority.all(), &self.token_id)?.token);
                        if token.revoked_at.is_none() {
                            let now = Timestamp::now();
                            context.store.revoke_token(token.id, &by, now)?;
                            token.revoked_at = Some(now);
                        }
                        Ok(context.authority.put(token))
                    })
                    .await?;
                tracing::info!(token = %revoked.token.name, id = %revoked.token.id, actor = &*actor, "token revoked");
                Ok(info(&owner, &revoked, Timestamp::now()))
            })
            .await
    }
}

/// Finds the token of this id or name, or the only one whose id begins with the text.
fn named<'a>(tokens: &'a [Known], name: &str) -> Result<&'a Known, Error> {
    let shown: String = name.chars().take(80).collect();
    if let Ok(id) = name.parse::<TokenId>()
        && let Some(found) = tokens.iter().find(|it| it.token.id == id)
    {
        return Ok(found);
    }
    // The name of a revoked token may have been given again.
    let called = |it: &&Known| it.token.name.as_str() == name && it.token.revoked_at.is_none();
    if let Some(found) = tokens.iter().find(called) {
        return Ok(found);
    }
    let begins = |it: &&Known| {
        let id = it.token.id.to_string();
        !name.is_empty() && (id.starts_with(name) || id.strip_prefix("token-").is_some_and(|it| it.starts_with(name)))
    };
    let found: Vec<&Known> = tokens.iter().filter(begins).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let message = format!("there is no token `{shown}`; `levain token list --all` lists all tokens");
            Err(Error::new(ErrorCode::TokenNotFound, message))
        }
        _ => {
            let message =
                format!("the ids of {} tokens begin with `{shown}`: give more of the id, or a name", found.len());
            Err(Error::new(ErrorCode::Conflict, message))
        }
    }
}

impl Context {
    /// Writes when tokens were last used, as far as that is not on disk.
    pub async fn write_token_uses(self: &Arc<Self>) -> Result<(), Error> {
        let uses = self.authority.unwritten();
        if uses.is_empty() {
            return Ok(());
        }
        let work = move |context: &Self| {
            context.store.note_token_uses(&uses)?;
            context.authority.written(&uses);
            Ok(())
        };
        self.blocking(work).await
    }
}
