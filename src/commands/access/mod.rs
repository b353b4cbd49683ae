//! Access: the tokens of HTTP, the scope that each command needs, and the limit on wrong tokens.

mod admin_token;
mod auth;
mod rate_limit;
mod scopes;
mod tokens;

pub use admin_token::{ADMIN_TOKEN_FILE, AdminTokenError, ensure_admin_token};
pub use auth::{Authority, TokenRights, token_missing};
pub use scopes::{About, Needs, SCOPES, needs};
