//! The client of a connection, and the headers that describe it to functions.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::SocketAddr;
use tokio::sync::OnceCell;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Address of a client, and how it has connected.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Whether a function has opened the connection; looked up on first use, see [`super::local`].
    pub(super) is_function: OnceCell<bool>,
    /// Header values, built once for all requests of the connection.
    forwarded_for: HeaderValue,
    forwarded_proto: HeaderValue,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, is_tls: bool) -> Self {
        let ip = address.ip().to_canonical().to_string();
        Self {
            address,
            is_function: OnceCell::new(),
            forwarded_for: HeaderValue::try_from(ip).expect("an address is visible ASCII"),
            forwarded_proto: HeaderValue::from_static(if is_tls { "https" } else { "http" }),
        }
    }

    /// Sets the headers that describe the client to a function. They replace the client's own, as a function could not
    /// tell which of the two is true.
    pub(super) fn introduce(&self, headers: &mut HeaderMap) {
        headers.insert(FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(FORWARDED_PROTO, self.forwarded_proto.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_said_without_its_port_and_as_what_it_is() {
        for (address, said) in [("1.2.3.4:5", "1.2.3.4"), ("[::ffff:1.2.3.4]:5", "1.2.3.4"), ("[fd00::1]:5", "fd00::1")]
        {
            let mut headers = HeaderMap::new();
            Peer::new(address.parse().expect("an address"), true).introduce(&mut headers);
            assert_eq!(
                (&headers[FORWARDED_FOR], &headers[FORWARDED_PROTO]),
                (&HeaderValue::from_static(said), &HeaderValue::from_static("https"))
            );
        }
    }
}
