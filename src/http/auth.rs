//! Authentication by the token in the header `Authorization`.

use crate::{
    commands::{ADMIN_TOKEN_FILE, Context, TokenRights, token_missing},
    error::Error,
    model::Timestamp,
};
use http::{HeaderMap, HeaderValue, header};
use std::{net::IpAddr, time::Instant};

/// Returns what the request's token allows. Fails with `UNAUTHORIZED` if there is no valid token, and with `OVERLOADED`
/// if too many wrong ones have come from this address.
pub(super) fn authorize(context: &Context, headers: &HeaderMap, peer: IpAddr) -> Result<TokenRights, Error> {
    let bearer = bearer(headers).ok_or_else(token_missing)?;
    context.authority.check_from(peer, bearer, (Timestamp::now(), Instant::now()))
}

/// Like [`authorize`], for management: the error names the file with the first token, since a manager of the node may
/// be able to read the data directory.
pub(super) fn authorize_management(context: &Context, headers: &HeaderMap, peer: IpAddr) -> Result<TokenRights, Error> {
    if bearer(headers).is_none() {
        let mut error = token_missing();
        error.message += &format!("; the first token is in `{ADMIN_TOKEN_FILE}` in the data directory");
        return Err(error);
    }
    authorize(context, headers, peer)
}

/// Returns the token after `Bearer` (RFC 6750, section 2.1). A request with two `Authorization` headers has none, as it
/// is unclear which one counts.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = bearer_in(values.next()?)?;
    values.next().is_none().then_some(bearer)
}

/// Returns the token after `Bearer` in one header value.
pub(super) fn bearer_in(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_behind_bearer_and_nowhere_else() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer lvn_a"]).as_deref(), Some("lvn_a"));
        assert_eq!(of(&["bEARER  lvn_a "]).as_deref(), Some("lvn_a"));
        for other in [&[][..], &["lvn_a"], &["Basic lvn_a"], &["Bearerlvn_a"], &["Bearer lvn_a", "Bearer lvn_b"]] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }
}
