//! The host that a request is for.

use crate::{error::Error, model::is_host};
use http::{HeaderValue, Request, Version, header};

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
