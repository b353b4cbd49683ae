//! Unread bodies: their requests are answered at once, and the connection goes on after them or announces its end.

use super::daemon_with;
use crate::harness::TestDaemon;
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};

const MIB: usize = 1024 * 1024;

struct Answer {
    status: u16,
    is_last: bool,
}

/// A connection to the HTTP face.
struct Connection(BufStream<TcpStream>);

impl Connection {
    async fn to(daemon: &TestDaemon) -> Self {
        Self(BufStream::new(TcpStream::connect(daemon.http()).await.unwrap()))
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Sends the head of a request that announces a body of this many bytes.
    async fn begin(&mut self, request: &str, length: usize, more: &str) {
        let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{more}\r\n");
        self.send(head.as_bytes()).await;
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(20), self.0.read_line(&mut line)).await;
        read.expect("an answer arrives before the body").expect("a line");
        line
    }

    /// Reads the next answer, with its whole body.
    async fn answer(&mut self) -> Answer {
        let first = self.line().await;
        let status = first.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {first:?}")).parse().unwrap();
        let (mut length, mut is_last) = (0, false);
        loop {
            let line = self.line().await.to_ascii_lowercase();
            match line.trim().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("connection", value)) => is_last = value == "close",
                Some(_) => {}
                None => break,
            }
        }
        self.0.read_exact(&mut vec![0; length]).await.unwrap();
        Answer { status, is_last }
    }

    async fn is_closed(&mut self) -> bool {
        timeout(Duration::from_secs(20), self.0.read_u8()).await.expect("it ends").is_err()
    }
}

async fn with_functions() -> TestDaemon {
    let daemon = daemon_with(|config| config.http.body_bytes_max = MIB as u32).await;
    daemon.deploy_text("hasty", "export default async () => new Response('no body is needed');").await;
    daemon
}

/// Requests that are answered regardless of their body, and the status of the answer.
const HASTY: [(&str, usize, u16); 6] = [
    ("POST /health", 5, 405),
    ("POST /nothing", 5, 404),
    ("DELETE /api/functions/hasty/rollouts", 100_000, 401),
    ("POST /functions/nobody", 5, 404),
    ("POST /functions/nobody", MIB, 404),
    ("POST /functions/hasty", 2 * MIB, 413),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_is_answered_on_the_same_connection() {
    let daemon = with_functions().await;
    let mut connection = Connection::to(&daemon).await;
    for (request, length, status) in HASTY {
        connection.begin(request, length, "").await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.is_last), (status, false), "{request}");
        connection.send(&vec![b'x'; length]).await;
        connection.begin("GET /functions/hasty", 0, "").await;
        assert_eq!(connection.answer().await.status, 200, "behind {request}");
    }
    daemon.stop().await;
}

/// A client that is asked to continue (RFC 9110, section 10.1.1) gets its body read.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_asked_is_not_asked_in_vain() {
    let daemon = with_functions().await;
    for (request, length, status) in HASTY {
        let mut connection = Connection::to(&daemon).await;
        connection.begin(request, length, "expect: 100-continue\r\n").await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.is_last), (status, true), "{request}");
        assert!(connection.is_closed().await);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_to_read_ends_the_connection() {
    let daemon = with_functions().await;
    let mut connection = Connection::to(&daemon).await;
    connection.begin("POST /functions/hasty", 17 * MIB, "").await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.is_last), (413, true));
    // The daemon reads a part of the body, so that a client that is still sending finds the answer.
    connection.send(&vec![b'x'; 8 * MIB]).await;
    assert!(connection.is_closed().await);
    daemon.stop().await;
}

/// A function that answers without reading its request.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_need_not_read_its_body() {
    let daemon = with_functions().await;
    let mut connection = Connection::to(&daemon).await;
    for length in [5, 100_000, MIB] {
        connection.begin("POST /functions/hasty", length, "").await;
        connection.send(&vec![b'x'; length]).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.is_last), (200, false), "{length}");
    }
    daemon.stop().await;
}
