//! The pace of a request's body: a worker is claimed once its beginning has arrived, and the rest must not be too slow.

use super::{curl_with, daemon_with, exchange};
use crate::harness::TestDaemon;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const CODE: &str = r#"
export default async (req) => {
    const length = req.headers.get("content-length");
    return new Response(`${length} announced, ${(await req.text()).length} read`);
};"#;

async fn with_function(change: impl FnOnce(&mut levain::config::HttpConfig)) -> TestDaemon {
    let daemon = daemon_with(|config| change(&mut config.http)).await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

/// A small body is read before a worker is claimed, whether or not its length is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_of_unknown_length_comes_to_the_function_as_a_whole() {
    let daemon = with_function(|_| {}).await;
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for bytes in [1, 1_000, 60_000] {
            let arguments = ["-T", "-", "-X", "POST", version];
            let shown = curl_with(&daemon, &arguments, "/functions/f", &vec![b'x'; bytes]).await;
            assert_eq!(shown.text(), format!("{bytes} announced, {bytes} read"), "{version}");
        }
    }
    let many = "1\r\nx\r\n".repeat(5_000);
    let request = format!(
        "POST /functions/f HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{many}0\r\n\r\n"
    );
    let answer = exchange(daemon.http(), request.as_bytes()).await;
    assert!(answer.ends_with("5000 announced, 5000 read"), "{answer}");
    daemon.stop().await;
}

/// A body that arrives byte by byte holds a worker only for as long as its bytes justify.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_hardly_comes_is_ended() {
    let daemon = with_function(|http| (http.body_timeout_ms, http.body_bytes_per_second_min) = (1_500, 1_000)).await;
    let is_ended = async |length: &str| {
        let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
        let head = format!("POST /functions/f HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let part: &[u8] = if length.ends_with("chunked") { b"1\r\nx\r\n" } else { b"x" };
        let mut answer = Vec::new();
        let answered = async {
            while !answer.ends_with(b"}") {
                let _ = stream.write_all(part).await;
                let _ = timeout(Duration::from_millis(50), stream.read_buf(&mut answer)).await;
            }
        };
        timeout(Duration::from_secs(20), answered).await.expect("it is ended");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains(r#""code":"TIMEOUT""#), "{length}: {answer}");
        assert!(answer.contains("http.body_bytes_per_second_min"), "{length}: {answer}");
    };
    tokio::join!(
        is_ended("transfer-encoding: chunked"),
        is_ended("content-length: 1000"),
        is_ended("content-length: 1000000"),
    );
    daemon.until_pool("f", "nothing runs", |pool| pool.running == 0).await;
    daemon.stop().await;
}

/// `100-continue` is the only expectation (RFC 9110, section 10.1.1).
#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_that_nobody_knows_is_refused() {
    let daemon = with_function(|_| {}).await;
    let ask = async |version: &str, expect: &str| {
        let head = format!("POST /functions/f HTTP/{version}\r\nhost: x\r\ncontent-length: 2\r\n");
        exchange(daemon.http(), format!("{head}connection: close\r\n{expect}\r\n\r\nxy").as_bytes()).await
    };
    for expect in ["expect: 200-ok", "expect: ", "expect: 100-continue, more", "expect: 100-continue\r\nexpect: more"] {
        let answer = ask("1.1", expect).await;
        let is_told = answer.starts_with("HTTP/1.1 417 ") && answer.contains(r#""code":"INVALID_REQUEST""#);
        assert!(is_told && answer.contains("connection: close"), "{expect}: {answer}");
    }
    assert!(ask("1.1", "expect: 100-Continue").await.ends_with("2 announced, 2 read"));
    assert!(ask("1.0", "expect: more").await.ends_with("2 announced, 2 read"), "HTTP/1.0 has no expectations");
    daemon.stop().await;
}
