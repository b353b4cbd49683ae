//! What commands about tokens say and answer. The secret stands in the answer of CREATE_TOKEN and nowhere else.

use crate::model::{FunctionId, Scope, Secret, Timestamp, TokenId, TokenName, token::TokenStatus};
use serde::{Deserialize, Serialize};

requests! {
    /// CREATE_TOKEN.
    CreateTokenRequest {
        /// What the audit trail calls who uses it: letters, digits, `_` and `-`, unique among those not revoked.
        #[schemars(with = "TokenName")]
        name: String,
        /// `admin`, `deploy`, `invoke` or `read`; at least one.
        #[schemars(length(min = 1))]
        scopes: Vec<Scope>,
        /// Id or name of the one function that it is for; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function_id: Option<String>,
        /// How long it is valid, such as `12h` or `30d`; until it is revoked when this and `expires_at` are absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^[1-9][0-9]{0,8}[smhd]$"))]
        expires_in: Option<String>,
        /// When it ends, instead of `expires_in`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    }
    /// LIST_TOKENS.
    ListTokensRequest {
        /// Whether expired and revoked ones are listed too.
        #[serde(default)]
        all: bool,
        /// Tokens at most; 1000 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// Tokens to skip.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u32>,
        /// The `next_cursor` of the page before, instead of `offset`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// REVOKE_TOKEN.
    RevokeTokenRequest {
        /// Its id, its name, or as much of its id's beginning as tells it from all others.
        token_id: String,
    }
}

messages! {
    /// CREATE_TOKEN.
    CreateTokenResponse {
        /// The secret: what stands behind `Bearer`. It is in this answer and cannot be asked for again.
        token: Secret,
        /// All else about it.
        #[serde(flatten)]
        info: TokenInfo,
    }
    /// LIST_TOKENS.
    ListTokensResponse {
        /// In the order in which they were made.
        tokens: Vec<TokenInfo>,
        /// How many there are besides paging.
        total: u64,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// A token without its secret; what answers REVOKE_TOKEN.
    TokenInfo {
        /// Its id.
        #[schemars(with = "TokenId")]
        token_id: String,
        /// Its name.
        name: String,
        /// What it may be used for.
        scopes: Vec<Scope>,
        /// The id of the one function that it is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<FunctionId>")]
        function_id: Option<String>,
        /// That function's name, unless it is deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
        /// `valid`, `expired` or `revoked`.
        status: TokenStatus,
        /// Who made it.
        actor: String,
        /// When it was made.
        created_at: Timestamp,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        /// When it was last used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_used_at: Option<Timestamp>,
        /// When it was revoked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revoked_at: Option<Timestamp>,
    }
}
