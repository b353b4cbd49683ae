//! The daemon's HTTP address: clients of `localhost` reach the daemon and no other program.

use super::{curl, daemon, daemon_with, exchange};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

async fn health(address: SocketAddr) -> String {
    exchange(address, b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_loopback_addresses_lead_to_the_daemon() {
    for configured in ["127.0.0.1:0", "[::1]:0", "localhost:0", "0.0.0.0:0"] {
        let daemon = daemon_with(|config| config.http.address = configured.into()).await;
        let port = daemon.http().port();
        for address in [SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), (Ipv6Addr::LOCALHOST, port).into()] {
            assert!(health(address).await.starts_with("HTTP/1.1 200 "), "{configured}: {address}");
        }
        assert_eq!(daemon.status().await.http_taken, None);
        daemon.stop().await;
    }
}

/// A function that listened on the other address would receive the tokens of clients that connect to `localhost`.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_cannot_listen_beside_the_daemon() {
    let daemon = daemon().await;
    let code = r#"
    export default (req) => {
        const [hostname, port] = new URL(req.url).searchParams.get("at").split("_");
        try {
            Bun.listen({ hostname, port: Number(port), socket: { data() {} } }).stop();
        } catch (error) {
            return new Response(error.code);
        }
        return new Response("listens");
    };"#;
    daemon.deploy_text("f", code).await;
    let port = daemon.http().port();
    for (host, outcome) in [("::1", "EADDRINUSE"), ("127.0.0.1", "EADDRINUSE"), ("127.0.0.9", "listens")] {
        let shown = curl(&daemon, &[], &format!("/functions/f?at={host}_{port}")).await;
        assert_eq!(shown.text(), outcome, "{host}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_says_who_else_localhost_may_lead_to() {
    // Another program holds the port's IPv6 half.
    let stranger = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let taken = stranger.local_addr().unwrap();
    let daemon = daemon_with(|config| config.http.address = format!("127.0.0.1:{}", taken.port())).await;
    assert_eq!(daemon.http(), (Ipv4Addr::LOCALHOST, taken.port()).into());
    assert_eq!(daemon.status().await.http_taken, Some(taken.to_string()));
    let shown = curl(&daemon, &[], "/ready").await;
    assert_eq!(shown.status(), 200);
    let expected = format!("ok\nanother process listens on {taken}, so localhost may lead to it\n");
    assert_eq!(shown.text(), expected);
    daemon.stop().await;
}
