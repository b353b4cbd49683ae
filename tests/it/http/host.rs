//! The host of a request: how the function sees it, which hosts are refused, and which headers may override it.

use super::{curl, daemon, exchange, frames::*};
use crate::harness::TestDaemon;

const CODE: &str = r#"
let calls = 0;
export default (req) => {
    const url = new URL(req.url);
    if (url.pathname === "/calls") return new Response(String(calls));
    if (url.pathname === "/client") return Response.json([...req.headers].filter(([name]) => name.startsWith("x-forwarded-")));
    if (url.pathname === "/own") return new Response("own: " + req.headers.get("x-own"));
    calls++;
    return new Response(`<${req.method} ${req.url} of ${req.headers.get("host")}>`);
};"#;

async fn with_function() -> TestDaemon {
    let daemon = daemon().await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

async fn calls(daemon: &TestDaemon) -> String {
    curl(daemon, &[], "/functions/f/calls").await.text().to_owned()
}

/// Builds an HTTP/1.1 request with this target and host.
fn request(target: &str, host: &str) -> Vec<u8> {
    // Each character becomes one byte, so that a test can send bytes that are not UTF-8.
    let text = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    text.chars().map(|it| it as u8).collect()
}

/// Sends an HTTP/2 request with these headers besides the method and the scheme, and returns its whole answer as text.
async fn over_http2(daemon: &TestDaemon, list: &[(&str, &str)]) -> (End, String) {
    let list = [(":method", "GET"), (":scheme", "http")].iter().chain(list);
    let list: Vec<u8> = list.flat_map(|(name, value)| literal(name, value)).collect();
    let mut peer = Peer::begin(daemon.http(), &[]).await;
    peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &list)).await;
    let mut end = End::default();
    let mut text = String::new();
    for frame in peer.answer(1).await {
        match frame.kind {
            DATA => text.push_str(&String::from_utf8_lossy(&frame.payload)),
            RST_STREAM => end.resets.push((1, frame.code())),
            HEADERS => end.answered.push(1),
            _ => {}
        }
    }
    (end, text)
}

const NO_HOSTS: [&str; 24] = [
    "",
    "a b",
    "a\tb",
    "\u{e9}",
    "user@host",
    "user:word@f.localhost",
    "a/b",
    "a?b",
    "a#b",
    "a\\b",
    "a%20b",
    "a, b",
    "a:99999",
    "a:abc",
    "f.localhost:abc",
    "a:+80",
    "[::1",
    "[::1]x",
    "::1",
    "1.2.3.4.5",
    "1.2.3.256",
    "a.0x",
    "xn--",
    "xn--a.example",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_host_is_refused_and_reaches_no_function() {
    let daemon = with_function().await;
    for host in NO_HOSTS {
        for target in ["/functions/f", "/health", "http://f.localhost/"] {
            let answer = exchange(daemon.http(), &request(target, host)).await;
            let is_told = answer.starts_with("HTTP/1.1 400 ") && answer.contains(r#""code":"INVALID_REQUEST""#);
            assert!(is_told, "{host:?} {target}: {answer:?}");
        }
        let path = (":path", "/functions/f");
        for list in [[(":authority", host), path], [path, ("host", host)]] {
            // The HTTP/2 library may refuse the host before the daemon sees it.
            let (end, text) = over_http2(&daemon, &list).await;
            assert!(!end.resets.is_empty() || text.contains("INVALID_REQUEST"), "{host:?}: {end:?} {text}");
        }
    }
    assert_eq!(calls(&daemon).await, "0");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_that_a_url_may_have_reaches_the_function() {
    let daemon = with_function().await;
    let hosts = [
        "a",
        "A.example",
        "a.:",
        "a_b-c~d!$&'()*+;=:80",
        "1.2.3.4:65535",
        "1.2.3.4.",
        "[::1]",
        "[::ffff:1.2.3.4]:8080",
        "xn--bcher-kva.example",
        "xn--ls8h",
        "a..b",
    ];
    for host in hosts {
        let answer = exchange(daemon.http(), &request("/functions/f", host)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!(" of {host}>")), "{host}: {answer:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_sees_the_host_however_it_was_said() {
    let daemon = with_function().await;
    let path = (":path", "/functions/f/x?y");
    let seen = "<GET http://a.example:81/x?y of a.example:81>";
    for list in [
        &[(":authority", "a.example:81"), path][..],
        &[(":authority", "a.example:81"), path, ("host", "a.example:81")],
        &[path, ("host", "a.example:81")],
    ] {
        assert_eq!(over_http2(&daemon, list).await.1, seen, "{list:?}");
    }
    // A server in front of the daemon may have used either host, so a contradiction is refused.
    for (authority, host) in [("a.example", "b.example"), ("x", "f.localhost"), ("f.localhost", "x")] {
        let (_, text) = over_http2(&daemon, &[(":authority", authority), path, ("host", host)]).await;
        assert!(text.contains("INVALID_REQUEST") && text.contains("different hosts"), "{authority} {host}: {text}");
    }
    let port = daemon.http().port();
    let shown = curl(&daemon, &["--http2-prior-knowledge"], &format!("http://f.localhost:{port}/x")).await;
    assert_eq!(shown.text(), format!("<GET http://f.localhost:{port}/x of f.localhost:{port}>"));
    // RFC 9112, section 3.2.2.
    for (target, seen) in [
        ("http://a.example/functions/f/x", "<GET http://a.example/x of a.example>"),
        ("http://F.localhost:9/x", "<GET http://f.localhost:9/x of F.localhost:9>"),
    ] {
        let answer = exchange(daemon.http(), &request(target, "b.example")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(seen), "{target}: {answer:?}");
    }
    // HTTP/1.0 does not require a host.
    let answer = exchange(daemon.http(), b"GET /functions/f/x HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("<GET http://localhost/x of localhost>"), "{answer:?}");
    daemon.stop().await;
}

/// A client's own claims about itself do not replace the daemon's.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_sees_who_calls_it_and_how() {
    let daemon = with_function().await;
    let own = ["-H", "X-Forwarded-For: 9.9.9.9", "-H", "x-forwarded-for: 8.8.8.8", "-H", "X-Forwarded-Proto: https"];
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for more in [&own[..], &[]] {
            let shown = curl(&daemon, &[&[version], more].concat(), "/functions/f/client").await;
            let seen = serde_json::json!([["x-forwarded-for", "127.0.0.1"], ["x-forwarded-proto", "http"]]);
            assert_eq!(shown.json(), seen, "{version} {more:?}");
        }
    }
    daemon.stop().await;
}

/// A client may list hop-by-hop headers, but not the headers that the daemon sets itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_have_its_address_or_the_host_removed() {
    let daemon = with_function().await;
    let named = "connection: close, x-forwarded-for, X-Forwarded-Proto, host, x-own\r\nx-own: 1\r\nhost: a.example\r\n";
    let ask =
        async |path: &str| exchange(daemon.http(), format!("GET {path} HTTP/1.1\r\n{named}\r\n").as_bytes()).await;
    let answer = ask("/functions/f/client").await;
    let seen = r#"[["x-forwarded-for","127.0.0.1"],["x-forwarded-proto","http"]]"#;
    assert!(answer.ends_with(seen), "{answer}");
    let answer = ask("/functions/f/x").await;
    assert!(answer.ends_with("<GET http://a.example/x of a.example>"), "{answer}");
    assert!(ask("/functions/f/own").await.ends_with("own: null"));
    daemon.stop().await;
}

/// Methods are case-sensitive (RFC 9110, section 9.1).
#[tokio::test(flavor = "multi_thread")]
async fn a_method_in_small_letters_is_another_one() {
    let daemon = with_function().await;
    for method in ["get", "Get", "head", "post", "oPTIONS", "PURGE"] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let shown = curl(&daemon, &[version, "-X", method], "/functions/f").await;
            let told = shown.json();
            assert_eq!((shown.status(), told["code"].as_str()), (400, Some("INVALID_REQUEST")), "{method}: {shown:?}");
            assert!(told["error"].as_str().unwrap().contains(&format!("method `{method}` is not served")), "{told}");
        }
    }
    assert_eq!(calls(&daemon).await, "0");
    daemon.stop().await;
}
