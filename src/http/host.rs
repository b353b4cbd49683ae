//! The host that a request is for.

use crate::{error::Error, model::is_host};
use http::{HeaderValue, Request, Version, header};
use std::net::SocketAddr;

/// Makes the header `Host` name the request's host, since both the choice of the function and the function's own URL
/// come from it.
///
/// A request of HTTP/1.1 has one host (RFC 9112, section 3.2). Two are refused, because a proxy in front of the daemon
/// may have used the other one. The host of an absolute target overrides the header (section 3.2.2). So does
/// `:authority` in HTTP/2, which must not contradict the header (RFC 9113, section 8.3.1).
pub(super) fn settle<B>(request: &mut Request<B>) -> Result<(), Error> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Error::invalid("the request has two headers `Host`"));
    }
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Error::invalid("the request has no header `Host`"));
    }
    if host.is_some_and(|it| !is_host(it.as_bytes())) {
        return Err(no_host("the header `Host`"));
    }
    let Some(authority) = request.uri().authority().map(|it| it.as_str()) else { return Ok(()) };
    if host.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        return Ok(());
    }
    if !is_host(authority.as_bytes()) {
        return Err(no_host("the request's target"));
    }
    if host.is_some() && request.version() == Version::HTTP_2 {
        return Err(Error::invalid("the header `Host` and `:authority` name different hosts"));
    }
    let authority = HeaderValue::from_str(authority).map_err(|_| no_host("the request's target"))?;
    request.headers_mut().insert(header::HOST, authority);
    Ok(())
}

fn no_host(what: &str) -> Error {
    Error::invalid(format!(
        "{what} names no valid host: use a name, an IPv4 address or an IPv6 address in brackets, with an optional port \
         from 0 to 65535"
    ))
}

/// Returns a host without its port and without a trailing dot.
pub(super) fn name(host: &str) -> &str {
    let end = match host.rsplit_once(':') {
        // A colon inside brackets is part of an address.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    end.strip_suffix('.').unwrap_or(end)
}

/// Returns the name in a configured address, or `None` for a numeric one.
pub(super) fn configured_name(address: &str) -> Option<String> {
    match address.parse::<SocketAddr>() {
        Ok(_) => None,
        Err(_) => Some(name(address).to_owned()).filter(|it| !it.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_split_from_its_port_and_its_last_dot() {
        for (host, expected) in [
            ("localhost", "localhost"),
            ("localhost.:80", "localhost"),
            ("[::1]", "[::1]"),
            ("[::1]:8080", "[::1]"),
            ("a.example:", "a.example"),
        ] {
            assert_eq!(name(host), expected, "{host}");
        }
    }

    #[test]
    fn a_configured_address_has_a_name_where_it_is_no_number() {
        for (address, expected) in
            [("127.0.0.1:8080", None), ("[::1]:8080", None), ("levain.internal:8080", Some("levain.internal"))]
        {
            assert_eq!(configured_name(address).as_deref(), expected, "{address}");
        }
    }
}
