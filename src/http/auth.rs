//! Who asks: the token in the header `Authorization`.

use crate::{
    commands::{ADMIN_TOKEN_FILE, Context, Grant, token_missing},
    error::Error,
    model::Timestamp,
};
use http::{HeaderMap, HeaderValue, header};
use std::{net::IpAddr, time::Instant};

/// What the token of a request allows. `UNAUTHORIZED` where it has none, or one that is not valid; `OVERLOADED` where too
/// many wrong ones have come from this address.
pub(super) fn authorize(context: &Context, headers: &HeaderMap, peer: IpAddr) -> Result<Grant, Error> {
    let bearer = bearer(headers).ok_or_else(token_missing)?;
    context.authority.check_from(peer, bearer, (Timestamp::now(), Instant::now()))
}

/// The same for management: who comes for that may be one who can look into the data directory.
pub(super) fn authorize_management(context: &Context, headers: &HeaderMap, peer: IpAddr) -> Result<Grant, Error> {
    if bearer(headers).is_none() {
        let mut error = token_missing();
        error.message += &format!(", and the first one is in `{ADMIN_TOKEN_FILE}` of the data directory");
        return Err(error);
    }
    authorize(context, headers, peer)
}

/// What stands behind `Bearer` (RFC 6750, section 2.1). With two headers nobody could say which one counts.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = bearer_in(values.next()?)?;
    values.next().is_none().then_some(bearer)
}

/// The same of one header.
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
