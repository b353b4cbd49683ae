//! Tokens: clients that may use HTTP, and their scopes.

use super::error::CliError;
use super::input::Confirmation;
use super::print::{BOLD, DIM, facts, styled, table};
use super::session::Session;
use super::text;
use crate::model::token::TokenStatus;
use crate::model::{Scope, Timestamp, time::parse_age};
use crate::protocol::message::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest, TokenInfo,
};
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};

/// `levain token`.
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Create a token; its secret is shown only once
    Create(Create),
    /// List the valid tokens
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  levain token list\n  levain token list --all     also expired and revoked ones"
    )]
    List {
        /// Include expired and revoked tokens
        #[arg(long)]
        all: bool,
        /// Maximum number of tokens [default: all]
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// Number of tokens to skip
        #[arg(long, value_name = "N")]
        offset: Option<u32>,
    },
    /// Revoke a token at once and for good
    #[command(
        visible_alias = "delete",
        after_help = "Examples:\n  levain token revoke ci --yes\n  levain token revoke token-0199aabb"
    )]
    Revoke {
        /// The token's name, its id, or a unique beginning of its id
        #[arg(value_name = "TOKEN")]
        token: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

const EXAMPLES: &str = "Examples:
  levain token create ci --scope deploy --expires 90d
  levain token create shop --scope invoke --function checkout
  levain token create tests --scope deploy --scope invoke
  levain --json token create ci --scope deploy | jq -r .token > ci.token

Use it with curl -H \"Authorization: Bearer $TOKEN\" …

The scope deploy includes read, and admin includes all others. The socket that this command uses needs no token.";

/// `levain token create`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Create {
    /// The token's name for the audit trail: letters, digits, `_` and `-`
    name: String,
    /// A scope of the token; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Limit the token to one function, by name or id [default: all]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Expiry, as a time span such as 12h or 30d, or as a time [default: never]
    #[arg(long, value_name = "WHEN", value_parser = parse_expiry)]
    expires: Option<Expiry>,
}

impl ValueEnum for Scope {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.allows()))
    }
}

/// Expiry of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expiry {
    After(String),
    At(Timestamp),
}

fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if parse_age(text).is_some() {
        return Ok(Expiry::After(text.to_owned()));
    }
    let at = text.parse().map(Expiry::At);
    at.map_err(|_| {
        format!("`{text}` is neither a time span such as 12h or 30d nor a time such as 2026-01-27T10:00:00Z")
    })
}

impl Token {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.run(session).await,
            Self::List { all, limit, offset } => {
                let request = ListTokensRequest { all, offset, ..ListTokensRequest::default() };
                session.print_list(request, limit, |it| list_text(it, Timestamp::now())).await
            }
            Self::Revoke { token, confirmation } => {
                confirmation.ask(&format!("Revoke {token}? Its users are refused at once."))?;
                let request = RevokeTokenRequest { token_id: token };
                session.print(&request, |it| format!("{} revoked {}", it.name, styled(DIM, it.token_id))).await
            }
        }
    }
}

impl Create {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let (expires_in, expires_at) = match self.expires {
            Some(Expiry::After(span)) => (Some(span), None),
            Some(Expiry::At(time)) => (None, Some(time)),
            None => (None, None),
        };
        let Self { name, scopes, function, .. } = self;
        let request = CreateTokenRequest { name, scopes, function_id: function, expires_in, expires_at };
        session.print(&request, created_text).await
    }
}

fn scopes_text(token: &TokenInfo) -> String {
    token.scopes.iter().map(|it| it.name()).collect::<Vec<_>>().join(",")
}

/// Function that a token is limited to; its id if the function is deleted.
fn function_text(token: &TokenInfo) -> String {
    token.function.clone().or(token.function_id.map(|it| it.to_string())).unwrap_or_else(|| "all".into())
}

fn created_text(response: &CreateTokenResponse) -> String {
    let CreateTokenResponse { token, info } = response;
    let mut text = facts([
        ("token", token.reveal().to_owned()),
        ("name", info.name.clone()),
        ("id", info.token_id.to_string()),
        ("scopes", scopes_text(info)),
        ("function", function_text(info)),
        ("expires", info.expires_at.map_or_else(|| "never".into(), |it| it.to_string())),
    ]);
    text.push_str(&styled(DIM, "keep the token now: it cannot be shown again"));
    text
}

fn list_text(response: &ListTokensResponse, now: Timestamp) -> String {
    if response.total == 0 {
        return "no tokens: create one with `levain token create`".into();
    }
    let rows = response.tokens.iter().map(|it| {
        let status = match (it.status, it.expires_at) {
            (TokenStatus::Valid, Some(end)) => {
                let left = end.as_millis().saturating_sub(now.as_millis());
                format!("valid for {}", text::duration_ms(left as f64))
            }
            (TokenStatus::Valid, None) => "valid".into(),
            (TokenStatus::Expired, _) => "expired".into(),
            (TokenStatus::Revoked, _) => "revoked".into(),
        };
        [
            it.name.clone(),
            scopes_text(it),
            function_text(it),
            status,
            it.last_used_at.map_or_else(|| "never".into(), |at| text::age(at, now)),
            text::age(it.created_at, now),
            it.actor.clone(),
            it.token_id.to_string(),
        ]
    });
    let mut text = table(["NAME", "SCOPES", "FUNCTION", "STATUS", "USED", "MADE", "BY", "ID"], rows);
    if (response.tokens.len() as u64) < response.total {
        text.push_str(&styled(BOLD, format!("{} of {} tokens", response.tokens.len(), response.total)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::TokenSecret;

    fn token() -> TokenInfo {
        TokenInfo {
            token_id: "token-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("a name"),
            name: "ci".into(),
            scopes: vec![Scope::Deploy, Scope::Invoke],
            function_id: Some("func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id")),
            function: Some("hello".into()),
            status: TokenStatus::Valid,
            actor: "uid:0".into(),
            created_at: Timestamp::from_millis(0),
            expires_at: Some(Timestamp::from_millis(86_460_000)),
            last_used_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn tokens_stand_below_each_other() {
        let revoked = TokenInfo {
            status: TokenStatus::Revoked,
            function: None,
            last_used_at: Some(Timestamp::from_millis(0)),
            ..token()
        };
        let text = list_text(
            &ListTokensResponse { tokens: vec![token(), revoked], total: 3, next_cursor: None },
            Timestamp::from_millis(60_000),
        );
        let expected = "\
NAME  SCOPES         FUNCTION                                   STATUS           USED    MADE    BY     ID
ci    deploy,invoke  hello                                      valid for 1d 0h  never   1m ago  uid:0  \
token-0190c1d2-aaaa-7bbb-8ccc-0123456789ab
ci    deploy,invoke  func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab  revoked          1m ago  1m ago  uid:0  \
token-0190c1d2-aaaa-7bbb-8ccc-0123456789ab
2 of 3 tokens";
        assert_eq!(plain(&text), expected);
    }

    #[test]
    fn a_new_token_is_shown_with_its_secret() {
        let response = CreateTokenResponse { token: TokenSecret::new([7; 32]), info: token() };
        let text = plain(&created_text(&response));
        assert!(text.starts_with("token     lvn_Bwc") && text.contains("cannot be shown again"), "{text}");
        assert!(!format!("{response:?}").contains("lvn_"), "{response:?}");
    }

    #[test]
    fn an_expiry_is_a_span_or_a_time() {
        assert_eq!(parse_expiry("30d"), Ok(Expiry::After("30d".into())));
        let at = Timestamp::from_millis(1_769_508_000_000);
        assert_eq!(parse_expiry("2026-01-27T10:00:00Z"), Ok(Expiry::At(at)));
        assert!(parse_expiry("tomorrow").is_err());
    }
}
