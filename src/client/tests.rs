//! Tests the client against a simulated daemon: answers in any order, dropped calls, broken connections.

use super::*;
use crate::protocol::frame;
use crate::protocol::message::{ListRequest, ListResponse, StatusRequest, StreamChunk};
use bytes::BytesMut;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// The daemon's end of a connection, played by the test.
struct Peer {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Peer {
    async fn request(&mut self) -> frame::Frame {
        loop {
            if let Some(frame) = frame::decode(&mut self.buffer, usize::MAX).expect("a frame") {
                return frame;
            }
            assert!(self.stream.read_buf(&mut self.buffer).await.expect("open") > 0, "the client has disconnected");
        }
    }

    async fn answer(&mut self, request_id: u64, status: u8, payload: &[u8]) {
        let mut out = BytesMut::new();
        frame::encode(request_id, status, payload, &mut out);
        self.stream.write_all(&out).await.expect("open");
    }
}

async fn pair() -> (Client, Peer) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let client = Client::connect(&socket).await.expect("connected");
    let (stream, _) = listener.accept().await.expect("a client");
    (client, Peer { stream, buffer: BytesMut::new() })
}

fn list(total: u64) -> Vec<u8> {
    let response = ListResponse { functions: Vec::new(), total, next_cursor: None };
    Encoding::MessagePack.write(&response).expect("plain data")
}

/// Waits with a deadline, so that a test fails instead of hanging.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("the future completes before the deadline")
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order() {
    let (client, mut peer) = pair().await;
    let daemon = async {
        let ids = [peer.request().await.request_id, peer.request().await.request_id, peer.request().await.request_id];
        for id in ids.into_iter().rev() {
            peer.answer(id, ipc::SUCCESS, &list(id)).await;
        }
        ids
    };
    let request = ListRequest::default();
    let calls = async { tokio::join!(client.call(&request), client.call(&request), client.call(&request)) };
    let (ids, (a, b, c)) = soon(async { tokio::join!(daemon, calls) }).await;
    let totals = [a, b, c].map(|it| it.expect("an answer").total);
    assert_eq!(totals, ids);
}

#[tokio::test]
async fn a_call_that_is_kept_but_not_polled_does_not_hold_up_another() {
    let (client, mut peer) = pair().await;
    let mut kept = client.call_streaming(&ListRequest::default()).expect("sent");
    // One poll makes this call the one that waits on the socket.
    let waits = tokio::time::timeout(Duration::ZERO, kept.next_partial::<StreamChunk>()).await;
    assert!(waits.is_err());
    let daemon = async {
        let first = peer.request().await.request_id;
        let second = peer.request().await.request_id;
        peer.answer(second, ipc::SUCCESS, &list(2)).await;
        first
    };
    let call = client.call(&ListRequest::default());
    let (first, answer) = soon(async { tokio::join!(daemon, call) }).await;
    assert_eq!(answer.expect("an answer").total, 2);
    peer.answer(first, ipc::SUCCESS, &list(1)).await;
    assert_eq!(soon(kept.finish()).await.expect("an answer").total, 1);
}

#[tokio::test]
async fn a_dropped_call_is_forgotten_and_its_answer_falls_away() {
    let (client, mut peer) = pair().await;
    drop(client.call_streaming(&ListRequest::default()).expect("sent"));
    let daemon = async {
        let dropped = peer.request().await.request_id;
        let id = peer.request().await.request_id;
        peer.answer(dropped, ipc::SUCCESS, &list(1)).await;
        peer.answer(id, ipc::SUCCESS, &list(2)).await;
    };
    let call = client.call(&ListRequest::default());
    let ((), answer) = soon(async { tokio::join!(daemon, call) }).await;
    assert_eq!(answer.expect("an answer").total, 2);
}

#[tokio::test]
async fn a_call_dropped_half_written_does_not_tear_the_next_frame() {
    let (client, mut peer) = pair().await;
    let large = vec![b' '; 8 << 20];
    // The peer does not read yet, so the socket accepts only the first part.
    drop(client.connection.start(1, &large).expect("sent in part"));
    let daemon = async {
        assert_eq!(peer.request().await.payload.len(), large.len());
        let id = peer.request().await.request_id;
        peer.answer(id, ipc::SUCCESS, &list(2)).await;
    };
    let call = client.call(&ListRequest::default());
    let ((), answer) = soon(async { tokio::join!(daemon, call) }).await;
    assert_eq!(answer.expect("an answer").total, 2);
}

#[tokio::test]
async fn parts_come_before_the_response() {
    let (client, mut peer) = pair().await;
    let mut answer = client.call_streaming(&ListRequest::default()).expect("sent");
    let id = peer.request().await.request_id;
    peer.answer(id, ipc::PARTIAL, br#"{"body": "YQ=="}"#).await;
    peer.answer(id, ipc::PARTIAL, br#"{"body": "Yg=="}"#).await;
    peer.answer(id, ipc::SUCCESS, &list(3)).await;
    let mut body = Vec::new();
    while let Some(chunk) = soon(answer.next_partial::<StreamChunk>()).await.expect("a part") {
        body.extend_from_slice(&chunk.body.0);
    }
    assert_eq!(body, b"ab");
    assert_eq!(soon(answer.finish()).await.expect("the response").total, 3);
}

#[tokio::test]
async fn what_the_daemon_said_before_it_closed_is_not_lost() {
    let (client, mut peer) = pair().await;
    let mut refused = client.call_streaming(&StatusRequest {}).expect("sent");
    let unanswered = client.call_streaming(&StatusRequest {}).expect("sent");
    let id = peer.request().await.request_id;
    peer.answer(id, ipc::ERROR, br#"{"error": "no", "code": "SHUTTING_DOWN"}"#).await;
    drop(peer);
    let error = soon(refused.next_partial::<StreamChunk>()).await.expect_err("an error");
    assert_eq!((error.code(), error.exit_code()), (Some(ErrorCode::ShuttingDown), 7));
    let error = soon(unanswered.finish()).await.expect_err("no answer");
    assert!(matches!(error, ClientError::Disconnected));
    let error = soon(client.call(&StatusRequest {})).await.expect_err("the connection has ended");
    assert_eq!(error.exit_code(), EXIT_NO_DAEMON);
}

#[tokio::test]
async fn a_refusal_is_read_though_the_request_was_not() {
    for _ in 0..20 {
        let (client, mut peer) = pair().await;
        let large = vec![b' '; 8 << 20];
        let call = client.call_raw(1, &large);
        let refuse = async {
            peer.answer(1, ipc::ERROR, b"{}").await;
            drop(peer);
        };
        let (outcome, ()) = soon(async { tokio::join!(call, refuse) }).await;
        assert_eq!(outcome.expect("an answer").0, ipc::ERROR);
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_or_an_odd_answer_is_a_protocol_error() {
    let (client, mut peer) = pair().await;
    let client = client.with_frame_bytes_max(100);
    let raw = client.call_streaming(&StatusRequest {}).expect("sent");
    let id = peer.request().await.request_id;
    peer.answer(id, 0x07, b"").await;
    let error = soon(raw.finish()).await.expect_err("no such status");
    assert!(matches!(error, ClientError::Protocol(ProtocolError::Status(7))), "{error}");
    let large = client.call_streaming(&StatusRequest {}).expect("sent");
    let id = peer.request().await.request_id;
    peer.answer(id, ipc::SUCCESS, &[b' '; 200]).await;
    let error = soon(large.finish()).await.expect_err("too large");
    assert!(matches!(error, ClientError::Protocol(ProtocolError::Frame(_))), "{error}");
}

#[tokio::test]
async fn without_a_daemon_the_error_says_how_to_start_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("levain.sock");
    let error = Client::connect(&socket).await.expect_err("nobody listens");
    let expected = format!(
        "no daemon answers at {}: start one with `levain serve`, or name its socket with --socket or LEVAIN_SOCKET",
        socket.display()
    );
    assert_eq!((error.to_string(), error.exit_code()), (expected, EXIT_NO_DAEMON));
}

/// Mixes lone and concurrent calls on several threads; every call must end, whichever task reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_changes_hands_without_losing_a_call() {
    let (client, mut peer) = pair().await;
    let done = Arc::new(AtomicUsize::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4_u64 {
        let (client, done) = (client.clone(), Arc::clone(&done));
        callers.spawn(async move {
            for round in 0..500_u64 {
                if (round + caller) % 7 == 0 {
                    tokio::task::yield_now().await;
                }
                let (status, payload) = client.call_raw(1, &round.to_le_bytes()).await.expect("an answer");
                assert_eq!((status, &payload[..]), (ipc::SUCCESS, &round.to_le_bytes()[..]));
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let daemon = async {
        loop {
            let request = peer.request().await;
            peer.answer(request.request_id, ipc::SUCCESS, &request.payload).await;
        }
    };
    let callers = async {
        while let Some(result) = callers.join_next().await {
            result.expect("no panic")
        }
    };
    soon(async {
        tokio::select! { () = daemon => {}, () = callers => {} }
    })
    .await;
    assert_eq!(done.load(Ordering::Relaxed), 2_000);
}
