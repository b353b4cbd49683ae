//! Detection of requests from this machine, in contrast to requests that are only passed on by it.
//!
//! A connection from a loopback address may belong to a reverse proxy, to a browser that was led here by a foreign name
//! (DNS rebinding), or to a function. Each is recognised by a sign:
//!
//! | peer | sign |
//! |---|---|
//! | a proxy | a header that names its client; HTTP/1.0, which nginx speaks to its upstreams by default; the public name in `Host` |
//! | a rebound browser | the name in `Host` |
//! | a function | the owner of its socket |
//!
//! A proxy without any of these signs cannot be told from a program of this machine.

use super::{face::Face, host, peer::Peer};
use crate::commands::Context;
use http::{HeaderMap, HeaderName, Version, header};
use std::{net::IpAddr, sync::Arc};
use tokio::runtime::Handle;

/// Headers by which proxies name their clients, besides those that begin with [`FORWARDED_PREFIX`].
const FORWARDED: [HeaderName; 6] = [
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
];

const FORWARDED_PREFIX: &str = "x-forwarded-";

/// Whether a request looks as if it came from this machine. The owner of its connection is not checked here, but by
/// [`is_local`].
pub(super) fn looks_local(face: &Face, peer: &Peer, version: Version, headers: &HeaderMap) -> bool {
    peer.address.ip().to_canonical().is_loopback()
        && version != Version::HTTP_10
        && !headers.keys().any(|name| name.as_str().starts_with(FORWARDED_PREFIX) || FORWARDED.contains(name))
        && headers.get(header::HOST).is_some_and(|host| is_own_host(face, host.as_bytes()))
}

/// Whether the connection of such a request belongs to no function. The answer is looked up once per connection.
pub(super) async fn is_local(face: &Face, context: &Arc<Context>, main: &Handle, peer: &Peer) -> bool {
    let look = async {
        let (context, address, port) = (Arc::clone(context), peer.address, face.address.port());
        let looked = main.spawn_blocking(move || context.scheduler.spawner().has_opened(address, port)).await;
        looked.unwrap_or(true)
    };
    !*peer.is_function.get_or_init(|| look).await
}

/// Whether a host, with or without a port, is a name of the loopback addresses or the address that the daemon listens
/// on.
fn is_own_host(face: &Face, host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = host::name(host);
    let is_own_ip = |ip: IpAddr| ip.to_canonical().is_loopback() || ip == face.address.ip();
    let is_below_localhost = || name.len() > 10 && name[name.len() - 10..].eq_ignore_ascii_case(".localhost");
    match name.trim_matches(['[', ']']).parse() {
        Ok(ip) => is_own_ip(ip),
        Err(_) => {
            name.eq_ignore_ascii_case("localhost")
                || is_below_localhost()
                || face.host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
        }
    }
}
