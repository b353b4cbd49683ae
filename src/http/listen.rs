//! Listening sockets: the configured address, and the machine's other loopback address.
//!
//! `localhost` stands for `127.0.0.1` and `[::1]`, and clients differ in which one they try first. Another process on
//! the other address would receive requests meant for the daemon, with their tokens. So a daemon that listens on one of
//! the two takes both. If the other one is taken, the daemon still starts, and reports it ([`Listeners::taken`]).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::{TcpListener, TcpStream};

/// Ports chosen by the system that are tried until one is free on both addresses.
const PORTS_TRIED_MAX: u32 = 16;

/// The sockets that accept connections.
#[derive(Debug)]
pub(super) struct Listeners {
    configured: TcpListener,
    /// Socket on the other loopback address.
    other: Option<TcpListener>,
    /// The other loopback address, if another process listens there.
    taken: Option<SocketAddr>,
}

impl Listeners {
    /// Listens on the configured address, and on the other loopback address if there is one.
    pub(super) async fn bind(address: &str) -> io::Result<Self> {
        let mut tried = 1;
        loop {
            let configured = TcpListener::bind(address).await?;
            let bound = configured.local_addr()?;
            let Some(other) = other_loopback(bound) else {
                return Ok(Self { configured, other: None, taken: None });
            };
            match TcpListener::bind(other).await {
                Ok(listener) => return Ok(Self { configured, other: Some(listener), taken: None }),
                Err(error) if is_absent(&error) => return Ok(Self { configured, other: None, taken: None }),
                // With port 0 the system can choose another one.
                Err(_) if asks_for_any_port(address) && tried < PORTS_TRIED_MAX => tried += 1,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "cannot listen on {other} too: another process may receive requests for \
                         http://localhost:{port}; use {bound} in place of localhost, or end that process and restart the daemon",
                        port = bound.port()
                    );
                    return Ok(Self { configured, other: None, taken: Some(other) });
                }
            }
        }
    }

    /// The bound address of the configured socket.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.configured.local_addr()
    }

    /// The other loopback address, if another process listens there.
    pub(super) fn taken(&self) -> Option<SocketAddr> {
        self.taken
    }

    /// Accepts the next connection on either socket.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.other {
            None => self.configured.accept().await,
            Some(other) => tokio::select! {
                accepted = self.configured.accept() => accepted,
                accepted = other.accept() => accepted,
            },
        }
    }
}

/// Returns the other address of `localhost`, if this one is one of the two. A socket on `[::]` serves both by itself.
fn other_loopback(address: SocketAddr) -> Option<SocketAddr> {
    let other = match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST | Ipv4Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => return None,
    };
    Some(SocketAddr::new(other, address.port()))
}

/// Whether the machine has no such address at all.
fn is_absent(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

fn asks_for_any_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(_, port)| port == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_stands_for_two_addresses() {
        let other = |text: &str| other_loopback(text.parse().expect("an address")).map(|it| it.to_string());
        for (address, expected) in [
            ("127.0.0.1:80", Some("[::1]:80")),
            ("[::1]:80", Some("127.0.0.1:80")),
            ("0.0.0.0:80", Some("[::1]:80")),
            ("[::]:80", None),
            ("127.0.0.2:80", None),
            ("10.0.0.1:80", None),
        ] {
            assert_eq!(other(address).as_deref(), expected, "{address}");
        }
    }
}
