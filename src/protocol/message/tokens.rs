//! Messages of the commands about tokens. Only the answer of CREATE_TOKEN holds the secret.

use crate::model::{FunctionId, Scope, Timestamp, TokenId, TokenName, TokenSecret, token::TokenStatus};
use serde::{Deserialize, Serialize};

requests! {
    /// CREATE_TOKEN.
    CreateTokenRequest {
        /// Name of the token, which identifies its user in the audit trail: letters, digits, `_` and `-`, unique among
        /// the tokens that are not revoked.
        #[schemars(with = "TokenName")]
        name: String,
        /// Scopes of the token, at least one: `admin`, `deploy`, `invoke` or `read`.
        #[schemars(length(min = 1))]
        scopes: Vec<Scope>,
        /// Limits the token to one function, by id or name; all functions when absent.
        function_id?: String,
        /// Lifetime of the token, such as `12h` or `30d`. Without this and `expires_at`, the token is valid until it is
        /// revoked.
        #[schemars(regex(pattern = "^[1-9][0-9]{0,8}[smhd]$"))]
        expires_in?: String,
        /// When the token expires, instead of `expires_in`.
        expires_at?: Timestamp,
    }
    /// LIST_TOKENS.
    ListTokensRequest {
        /// Whether expired and revoked tokens are listed too.
        #[serde(default)]
        all: bool,
        /// Most tokens in the answer; 1000 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// Number of tokens to skip.
        offset?: u32,
        /// The `next_cursor` of the previous page, instead of `offset`.
        cursor?: String,
    }
    /// REVOKE_TOKEN.
    RevokeTokenRequest {
        /// Id or name of the token, or an unambiguous prefix of its id.
        token_id: String,
    }
}

messages! {
    /// CREATE_TOKEN.
    CreateTokenResponse {
        /// Secret of the token, which follows `Bearer` in requests. Only this answer shows it.
        token: TokenSecret,
        /// Description of the token.
        #[serde(flatten)]
        info: TokenInfo,
    }
    /// LIST_TOKENS.
    ListTokensResponse {
        /// Tokens in order of creation.
        tokens: Vec<TokenInfo>,
        /// Number of tokens on all pages together.
        total: u64,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
    /// A token without its secret; also the answer of REVOKE_TOKEN.
    TokenInfo {
        /// Id of the token.
        token_id: TokenId,
        /// Name of the token.
        name: String,
        /// Scopes of the token.
        scopes: Vec<Scope>,
        /// Id of the function that the token is limited to; absent if it is valid for all.
        function_id?: FunctionId,
        /// Name of that function; absent if it is deleted.
        function?: String,
        /// `valid`, `expired` or `revoked`.
        status: TokenStatus,
        /// Actor who created the token.
        actor: String,
        /// When the token was created.
        created_at: Timestamp,
        /// When the token expires; absent if it does not.
        expires_at?: Timestamp,
        /// When the token was last used; absent if it never was.
        last_used_at?: Timestamp,
        /// When the token was revoked; absent if it was not.
        revoked_at?: Timestamp,
    }
}
