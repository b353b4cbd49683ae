//! Limits of a connection: the number of its requests and the time it may take.

use super::{curl, daemon_with, exchange, frames::*};
use crate::harness::{TestDaemon, until};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const CODE: &str = r#"
export default async (req) => {
    const url = new URL(req.url);
    if (url.pathname === "/endless") return new Response(new ReadableStream({
        async pull(controller) { controller.enqueue("x".repeat(60_000)); await Bun.sleep(0); },
    }));
    await Bun.sleep(Number(url.searchParams.get("ms") ?? 0));
    return new Response("ok");
};"#;

async fn with_function(change: impl FnOnce(&mut levain::config::HttpConfig)) -> TestDaemon {
    let daemon = daemon_with(|config| change(&mut config.http)).await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_had_its_requests_is_closed() {
    let daemon = with_function(|http| http.requests_per_connection_max = 3).await;
    let one = "GET /functions/f HTTP/1.1\r\nhost: x\r\n\r\n";
    // The last answer tells the client, before it sends another request.
    let answers = exchange(daemon.http(), one.repeat(3).as_bytes()).await;
    let heads: Vec<&str> = answers.split("HTTP/1.1 200 OK").skip(1).collect();
    assert_eq!(heads.iter().map(|it| it.contains("connection: close")).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(answers.matches("\r\n\r\nok").count(), 3, "{answers}");
    // Over HTTP/2, streams that are already open are served.
    let mut peer = Peer::begin(daemon.http(), &[]).await;
    let requests: Vec<u8> = (0..5).flat_map(|number| get(2 * number + 1, "/functions/f?ms=100")).collect();
    peer.send(&requests).await;
    let (mut answered, mut goaways) = (Vec::new(), Vec::new());
    while let Some(frame) = peer.next().await {
        match frame.kind {
            DATA if frame.flags & END_STREAM != 0 => answered.push(frame.stream),
            // The PING's round trip leaves time for streams that the client opens meanwhile (section 6.8).
            PING if frame.flags != ACK => {
                peer.send(&super::frames::frame(PING, ACK, 0, &frame.payload)).await;
            }
            GOAWAY => goaways.push(frame.code()),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5, 7, 9]);
    assert!(!goaways.is_empty() && goaways.iter().all(|code| *code == 0), "{goaways:?}");
    // Well-behaved clients do not notice the limit; for HTTP/2 the TLS tests show this.
    let urls = format!("http://{}/functions/f?[1-40]", daemon.http());
    let output =
        tokio::process::Command::new("curl").args(["--silent", "--fail", "--noproxy", "*", &urls]).output().await;
    assert_eq!(output.unwrap().stdout, b"ok".repeat(40));
    daemon.stop().await;
}

/// A connection for which the kernel buffers little, so that the daemon notices how it is read.
async fn that_reads_little(daemon: &TestDaemon) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(daemon.http()).await.unwrap()
}

/// A client that reads nothing holds a worker no longer than `http.body_timeout_ms`, and is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_cut_off() {
    let daemon = with_function(|http| http.body_timeout_ms = 500).await;
    let mut stream = that_reads_little(&daemon).await;
    stream.write_all(b"GET /functions/f/endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    daemon.until_pool("f", "it runs", |pool| pool.running == 1).await;
    daemon.until_pool("f", "it has ended", |pool| pool.running == 0).await;
    let daemon_ref = &daemon;
    until("it is counted", || async move {
        let page = curl(daemon_ref, &[], "/metrics").await;
        let page = super::exposition::Page::parse(page.text());
        let (slow, open) =
            (page.value("levain_http_slow_clients_total", &[]), page.value("levain_http_connections", &[]));
        (slow >= 1.0 && open == 1.0).then_some(())
    })
    .await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the answer is visibly incomplete");
    daemon.stop().await;
}

/// A client that reads slowly but steadily gets the whole body, though this takes longer altogether than it may stop
/// reading.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_is_served() {
    const PATIENCE: Duration = Duration::from_millis(1_000);
    let daemon = with_function(|http| http.body_timeout_ms = PATIENCE.as_millis() as u32).await;
    let mut stream = that_reads_little(&daemon).await;
    stream.write_all(b"GET /functions/f/endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (began, mut part) = (Instant::now(), vec![0; 200_000]);
    while began.elapsed() < 2 * PATIENCE {
        tokio::time::sleep(PATIENCE / 20).await;
        stream.read_exact(&mut part).await.unwrap();
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_head_is_refused_by_its_own_limit() {
    let daemon = with_function(|http| http.head_bytes_max = 8_192).await;
    let head = |bytes: usize| {
        format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(bytes))
    };
    assert!(exchange(daemon.http(), head(7_000).as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert!(exchange(daemon.http(), head(20_000).as_bytes()).await.starts_with("HTTP/1.1 431 "));
    daemon.stop().await;
}
