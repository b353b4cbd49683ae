//! Which connections give way when all places are taken.

use super::{curl, daemon_with, exchange, frames::*};
use crate::harness::{TestDaemon, until};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const CODE: &str = r#"
export default async (req) => {
    if (new URL(req.url).pathname === "/wait") await new Promise((resolve) => req.signal.addEventListener("abort", resolve));
    return new Response("called");
};"#;

async fn with_places(connections_max: u32) -> TestDaemon {
    let daemon = daemon_with(|config| config.http.connections_max = connections_max).await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

/// Connects from another address of this machine.
async fn connect_from(source: [u8; 4], daemon: &TestDaemon) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(daemon.http()).await.unwrap()
}

/// Sends one request, and keeps the connection.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

async fn idle_from(source: [u8; 4], daemon: &TestDaemon) -> TcpStream {
    let mut stream = connect_from(source, daemon).await;
    ask(&mut stream, "/health").await;
    stream
}

/// Whether the daemon has closed the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_))
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await
}

/// Opens connections, each with an invocation that lasts until its client disconnects.
async fn busy(daemon: &TestDaemon, count: u32) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for running in 1..=count {
        let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
        stream.write_all(b"GET /functions/f/wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        daemon.until_pool("f", "it runs", |pool| pool.running == running).await;
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_idle_connection_makes_room() {
    let daemon = with_places(3).await;
    // Three idle connections: without a byte, with half a head, and after an answer.
    let mut silent = TcpStream::connect(daemon.http()).await.unwrap();
    let mut slow = TcpStream::connect(daemon.http()).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: ").await.unwrap();
    let mut kept = idle_from([127, 0, 0, 1], &daemon).await;
    for _ in 0..2 {
        assert!(get(daemon.http(), "/functions/f").await.ends_with("called"));
        // The answered connection is still open, so the next one finds all places taken.
        let mut new = idle_from([127, 0, 0, 1], &daemon).await;
        ask(&mut new, "/health").await;
    }
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(idle_from([127, 0, 0, 1], &daemon).await);
    }
    assert!(is_closed(&mut silent).await && is_closed(&mut slow).await && is_closed(&mut kept).await);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_most_idle_connections_loses_first() {
    let daemon = with_places(5).await;
    let mut few = [idle_from([127, 0, 0, 2], &daemon).await, idle_from([127, 0, 0, 2], &daemon).await];
    let mut many = Vec::new();
    for _ in 0..3 {
        many.push(idle_from([127, 0, 0, 3], &daemon).await);
    }
    let mut new = idle_from([127, 0, 0, 4], &daemon).await;
    assert!(is_closed(&mut many[0]).await);
    // From here on, a client with many connections displaces only its own.
    for _ in 0..5 {
        many.push(idle_from([127, 0, 0, 3], &daemon).await);
    }
    for stream in few.iter_mut().chain([&mut new]) {
        ask(stream, "/ready").await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_answers_for_itself_while_functions_have_all_connections() {
    let daemon = with_places(2).await;
    let running = busy(&daemon, 2).await;
    for (path, status) in [("/health", "200"), ("/ready", "200"), ("/api/status", "401")] {
        let answer = exchange(daemon.http(), format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        let is_last = answer.contains("\r\nconnection: close\r\n");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && is_last, "{path}: {answer}");
    }
    for target in ["/functions/f", "http://f.localhost/"] {
        let answer = exchange(daemon.http(), format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains(r#""code":"OVERLOADED""#), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n") && answer.contains("\r\nretry-after: "), "{answer}");
        assert!(answer.contains("http.connections_max"), "{answer}");
    }
    let shown = curl(&daemon, &["--http2-prior-knowledge"], "/functions/f").await;
    assert_eq!((shown.status(), shown.json()["code"].as_str()), (429, Some("OVERLOADED")));
    // Busy connections are not displaced, and free their places when they end.
    drop(running);
    daemon.until_pool("f", "they have ended", |pool| pool.running == 0).await;
    let daemon_ref = &daemon;
    until("calls are served again", || async move {
        get(daemon_ref.http(), "/functions/f").await.ends_with("called").then_some(())
    })
    .await;
    daemon.stop().await;
}

/// Silent connections beyond the limit are closed one by one, and do not block other clients.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_beyond_the_limit_are_closed_soon() {
    let daemon = with_places(1).await;
    let running = busy(&daemon, 1).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(daemon.http()).await.unwrap());
    }
    assert!(get(daemon.http(), "/health").await.starts_with("HTTP/1.1 200 "));
    // This happens long before `http.head_timeout_ms` is over.
    let all = async {
        for stream in &mut silent {
            assert!(is_closed(stream).await);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("they are closed");
    drop(running);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_http2_is_told_to_go() {
    let daemon = with_places(1).await;
    let mut peer = Peer::begin(daemon.http(), &[]).await;
    peer.send(&super::frames::get(1, "/health")).await;
    assert!(!peer.answer(1).await.is_empty());
    assert!(get(daemon.http(), "/functions/f").await.ends_with("called"));
    let mut goaways = Vec::new();
    while let Some(frame) = peer.next().await {
        if frame.kind == GOAWAY {
            goaways.push(frame.code());
        }
    }
    assert!(!goaways.is_empty() && goaways.iter().all(|code| *code == 0), "{goaways:?}");
    daemon.stop().await;
}
