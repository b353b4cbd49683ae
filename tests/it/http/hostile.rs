//! Slow, greedy or broken clients: they get an error or are cut off, the daemon stays small, and others are served.

use super::{ask, curl, curl_with, daemon_with};
use crate::harness::{TestDaemon, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const CODE: &str = "export default async (req) => new Response('ok ' + (await req.text()).length);";

async fn with_function() -> TestDaemon {
    let daemon = daemon_with(|config| {
        config.http.head_timeout_ms = 500;
        config.http.body_timeout_ms = 500;
        config.http.body_bytes_max = 1_000_000;
    })
    .await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

async fn is_served(daemon: &TestDaemon) {
    let shown = curl(daemon, &["-d", "hello"], "/functions/f").await;
    assert_eq!((shown.status(), shown.text()), (200, "ok 5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused() {
    let daemon = with_function().await;
    let many: String = (0..200).map(|number| format!("h{number}: v\r\n")).collect();
    let large = format!("x: {}\r\n", "x".repeat(100_000));
    let post = "POST /functions/f HTTP/1.1\r\nhost: x\r\n";
    let cases = [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET /functions/f HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(), "400"),
        (format!("GET /functions/f HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
        (format!("GET /functions/f HTTP/1.1\r\nhost: x\r\n{large}\r\n"), "431"),
        ("GET /functions/f HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n".to_owned(), "400"),
        (format!("{post}content-length: 5\r\ncontent-length: 6\r\n\r\nhello"), "400"),
        (format!("{post}content-length: -1\r\n\r\n"), "400"),
        (format!("{post}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET"), ""),
        (format!("{post}transfer-encoding: gzip\r\n\r\n"), "400"),
        (format!("{post}connection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), "400"),
        (format!("{post}connection: close\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n"), "400"),
        (format!("{post}content-length: 2000000\r\n\r\n"), "413"),
    ];
    for (request, status) in cases {
        let answer = ask(daemon.http(), request.as_bytes()).await;
        let shown: String = request.chars().take(120).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {answer:?}");
        is_served(&daemon).await;
    }
    // A body over the limit whose length is not announced.
    let shown = curl_with(&daemon, &["-T", "-", "-X", "POST"], "/functions/f", &[b'x'; 1_500_000]).await;
    assert_eq!(shown.status(), 413, "{shown:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_slowly_is_cut_off() {
    let daemon = with_function().await;
    // A head that comes byte by byte, and a connection that sends nothing at all.
    for begun in ["GET /functions/f HTTP/1.1\r\nx: ", ""] {
        let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let dripping = tokio::spawn(async move {
            while !begun.is_empty() && writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            writer
        });
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        dripping.abort();
        is_served(&daemon).await;
    }
    // A small body and a large one that never end.
    for length in [10, 900_000] {
        let request = format!(
            "POST /functions/f HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\nhello"
        );
        let answer = ask(daemon.http(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("made no progress"), "{length}: {answer:?}");
        is_served(&daemon).await;
    }
    let daemon = &daemon;
    until("no invocation is left", || async move {
        daemon.pools("f").await.iter().all(|pool| pool.busy + pool.queued == 0).then_some(())
    })
    .await;
    for worker in daemon.pools("f").await {
        assert!(worker.idle <= 2, "{worker:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_keep_nobody_out() {
    let daemon = daemon_with(|config| config.http.connections_max = 1_100).await;
    daemon.deploy_text("f", CODE).await;
    let mut idle = JoinSet::new();
    for _ in 0..1_000 {
        let address = daemon.http();
        idle.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            stream
        });
    }
    let streams = idle.join_all().await;
    for _ in 0..20 {
        is_served(&daemon).await;
    }
    drop(streams);
    daemon.stop().await;
}
