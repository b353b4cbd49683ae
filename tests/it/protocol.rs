//! The command protocol, spoken by a program that knows only its documentation.

mod access;
mod golden;
mod life;
mod many;
pub mod wire;

use crate::harness::{Gate, TestDaemon, is_refused, until};
use levain::{config::SandboxMode, error::ErrorCode, protocol::message::StatusRequest};
use serde_json::{Value, json};
use wire::*;

const BOTH: [Language; 2] = [Language::Json, Language::MessagePack];

/// A function that answers when the gate is opened, so that a test decides how long an invocation runs.
pub async fn deploy_gate(daemon: &TestDaemon) -> Gate {
    let gate = Gate::shut(daemon.data_dir());
    daemon.deploy_text("gate", &gate.function()).await;
    gate
}

/// Waits until this many invocations run.
pub async fn until_busy(daemon: &TestDaemon, count: u32) {
    until("the invocations run", || async move {
        let status = daemon.client().call(&StatusRequest {}).await.unwrap();
        (status.pools.iter().map(|pool| pool.busy).sum::<u32>() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_in_any_pieces() {
    let daemon = TestDaemon::start().await;
    let mut wire = Wire::connect(&daemon.socket());
    let frames = BOTH.map(|language| frame(7, LIST_FUNCTIONS, &language.write(&json!({ "limit": 3 }))));
    for bytes in &frames {
        for byte in bytes {
            wire.send(&[*byte]);
        }
        let answer = wire.answer();
        assert_eq!((answer.id, answer.status), (7, SUCCESS));
    }
    let several: Vec<u8> = (0..20).flat_map(|id| frame(id, LIST_FUNCTIONS, b"{}")).collect();
    let (most, rest) = several.split_at(several.len() - 5);
    wire.send(most);
    let mut ids: Vec<u64> = (0..19).map(|_| wire.answer().id).collect();
    wire.send(rest);
    ids.push(wire.answer().id);
    ids.sort_unstable();
    assert_eq!(ids, Vec::from_iter(0..20));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_when_they_are_ready() {
    let daemon = TestDaemon::start_unconfined().await;
    let gate = deploy_gate(&daemon).await;
    let mut wire = Wire::connect(&daemon.socket());
    wire.send(&frame(1, INVOKE, br#"{"function_id": "gate"}"#));
    wire.send(&frame(2, LIST_FUNCTIONS, b"{}"));
    assert_eq!(wire.answer().id, 2, "the slow request does not hold up the fast one");
    gate.open();
    let answer = wire.answer();
    assert_eq!((answer.id, answer.status), (1, SUCCESS));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_use_is_an_error_and_is_free_afterwards() {
    let daemon = TestDaemon::start_unconfined().await;
    let gate = deploy_gate(&daemon).await;
    let mut wire = Wire::connect(&daemon.socket());
    wire.send(&frame(5, INVOKE, br#"{"function_id": "gate"}"#));
    wire.send(&frame(5, LIST_FUNCTIONS, b"{}"));
    let refused = wire.answer();
    assert_eq!((refused.id, refused.code().as_str()), (5, "INVALID_REQUEST"));
    gate.open();
    let answer = wire.answer();
    assert_eq!((answer.id, answer.status), (5, SUCCESS), "the request with the id is still answered");
    assert!(answer.read().1["execution_id"].is_string());
    wire.send(&frame(5, LIST_FUNCTIONS, b"{}"));
    assert_eq!(wire.answer().status, SUCCESS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_requests_that_make_no_sense() {
    let daemon = TestDaemon::start().await;
    let mut wire = Wire::connect(&daemon.socket());
    for language in BOTH {
        for command in [0x00, 0x7f, 0xff] {
            assert_eq!(wire.ask(language, command, &json!({ "function_id": "a" })).code(), "UNKNOWN_COMMAND");
        }
        let wrong = [
            (REGISTER_FUNCTION, json!({})),
            (REGISTER_FUNCTION, json!({ "name": 7 })),
            (INVOKE, json!({ "function_id": ["a"] })),
            (INVOKE, json!({ "function_id": "a", "headers": { "x": 1 } })),
            (INVOKE, json!({ "function_id": "a", "body": [1, 2] })),
            (INVOKE, json!({ "function_id": "a", "timeout_ms": -1 })),
            (DEPLOY_FUNCTION, json!({ "function_id": "a", "tags": "one" })),
            (WARMUP_FUNCTION, json!({ "function_id": "a", "count": 1.5 })),
            (ROLLBACK, json!({ "function_id": "a", "version": { "number": 1 } })),
        ];
        for (command, request) in wrong {
            assert_eq!(wire.ask(language, command, &request).code(), "INVALID_REQUEST", "{request}");
        }
        wire.serves();
    }
    let malformed: [&[u8]; 9] = [
        b"{",
        b"{]",
        b"{\"function_id\": \"a\"} x",
        b"{\"function_id\": \"\xff\"}",
        b"hello",
        b"\xc1",
        b"\x81\xa1",
        // An array instead of a map, and a map followed by another byte.
        b"\x91\xa1a",
        b"\x81\xabfunction_id\xa1a\xc0",
    ];
    for payload in malformed {
        wire.send(&frame(3, GET_FUNCTION, payload));
        let answer = wire.answer();
        assert_eq!((answer.id, answer.code().as_str()), (3, "INVALID_REQUEST"), "{payload:?}");
    }
    wire.serves();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_frame_is_answered_and_ends_the_connection() {
    let daemon = TestDaemon::start().await;
    let mut wire = Wire::connect(&daemon.socket());
    wire.serves();
    let mut malformed = frame(9, LIST_FUNCTIONS, b"{}");
    malformed[0] += 1;
    wire.send(&malformed);
    let answer = wire.answer();
    assert_eq!((answer.id, answer.code().as_str()), (9, "INVALID_REQUEST"));
    wire.is_closed();
    Wire::connect(&daemon.socket()).serves();
    daemon.stop().await;
}

/// Requests from before the connection broke are still answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_the_limit_is_refused_by_its_header() {
    let max = 131_072;
    let daemon = TestDaemon::start_with(|config| {
        config.limits.frame_bytes_max = max;
        config.sandbox.mode = SandboxMode::Off;
    })
    .await;
    let gate = deploy_gate(&daemon).await;
    let mut wire = Wire::connect(&daemon.socket());
    wire.send(&frame(1, INVOKE, br#"{"function_id": "gate"}"#));
    let padding = |bytes: usize| format!("{{\"pad\": \"{}\"}}", "x".repeat(bytes - 11)).into_bytes();
    wire.send(&frame(2, LIST_FUNCTIONS, &padding(max as usize - 13)));
    let answer = wire.answer();
    assert_eq!((answer.id, answer.status), (2, SUCCESS), "a frame of exactly the limit is taken");
    // The header suffices: the daemon does not wait for the payload.
    wire.send(&frame(3, LIST_FUNCTIONS, &padding(max as usize - 12))[..17]);
    let answer = wire.answer();
    assert_eq!((answer.id, answer.code().as_str()), (3, "PAYLOAD_TOO_LARGE"));
    gate.open();
    let answer = wire.answer();
    assert_eq!((answer.id, answer.status), (1, SUCCESS));
    wire.is_closed();
    daemon.stop().await;
}

/// The limit applies to frames in both directions: a client with the same limit can read every answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_the_limit_is_an_error_instead() {
    let max = 131_072;
    let daemon = TestDaemon::start_with(|config| config.limits.frame_bytes_max = max).await;
    let code = "const line = 'x'.repeat(10_000); export default () => {
        for (let i = 0; i < 20; i++) console.log(line);
        return new Response('logged');
    };";
    daemon.deploy_text("logs", code).await;
    daemon.invoke("logs").await.unwrap();
    let mut wire = Wire::connect(&daemon.socket());
    until("the lines are kept", || {
        let page = wire.call(Language::Json, GET_LOGS, &json!({ "function_id": "logs", "limit": 1 }));
        async move { (page["total"] == 20).then_some(()) }
    })
    .await;
    for language in BOTH {
        let mut ask = |limit| wire.ask(language, GET_LOGS, &json!({ "function_id": "logs", "limit": limit }));
        assert_eq!(ask(20).code(), "PAYLOAD_TOO_LARGE");
        let (_, page) = ask(10).read();
        assert_eq!(page["logs"].as_array().unwrap().len(), 10);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_was_begun_must_be_completed_in_time() {
    let daemon = TestDaemon::start_with(|config| config.limits.frame_timeout_ms = 50).await;
    let mut idle = Wire::connect(&daemon.socket());
    idle.serves();
    for begun in [1, 16, 18] {
        let mut wire = Wire::connect(&daemon.socket());
        wire.serves();
        wire.send(&frame(4, LIST_FUNCTIONS, b"{}")[..begun]);
        assert_eq!(wire.answer().code(), "INVALID_REQUEST");
        wire.is_closed();
    }
    // This connection has been idle for several times that long.
    idle.serves();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_the_limit_is_told_so() {
    // One of the two connections is the harness's own.
    let daemon = TestDaemon::start_with(|config| config.limits.connections_max = 2).await;
    let mut second = Wire::connect(&daemon.socket());
    second.serves();
    let mut third = Wire::connect(&daemon.socket());
    let told = third.answer();
    assert_eq!((told.id, told.code().as_str()), (0, "OVERLOADED"));
    third.is_closed();
    let told = daemon.connect().await.call(&StatusRequest {}).await.map_err(crate::harness::refused);
    assert!(is_refused(&told, ErrorCode::Overloaded), "{told:?}");
    second.serves();
    drop(second);
    until("the place is free again", || {
        let client = levain::client::Client::connect(daemon.socket());
        async move { client.await.ok()?.call(&StatusRequest {}).await.ok() }
    })
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_too_much_at_once_is_not_read_from() {
    let daemon = TestDaemon::start_with(|config| {
        config.limits.requests_per_connection_max = 2;
        config.sandbox.mode = SandboxMode::Off;
    })
    .await;
    let gate = deploy_gate(&daemon).await;
    let mut wire = Wire::connect(&daemon.socket());
    let requests: [(u64, u8, &[u8]); 4] = [
        (1, INVOKE, br#"{"function_id": "gate"}"#),
        (2, INVOKE, br#"{"function_id": "gate"}"#),
        (3, LIST_FUNCTIONS, b"{}"),
        (4, LIST_FUNCTIONS, b"{}"),
    ];
    wire.send(&requests.map(|(id, command, payload)| frame(id, command, payload)).concat());
    until_busy(&daemon, 2).await;
    let mut other = Wire::connect(&daemon.socket());
    for _ in 0..20 {
        other.serves();
    }
    gate.open();
    let ids: Vec<u64> = (0..4).map(|_| wire.answer().id).collect();
    assert!(ids[0] < 3, "a third request waits until one of the two is answered: {ids:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_payload_is_an_empty_request() {
    let daemon = TestDaemon::start().await;
    let mut wire = Wire::connect(&daemon.socket());
    wire.send(&frame(0, LIST_FUNCTIONS, b""));
    let (language, value): (Language, Value) = wire.answer().read();
    assert_eq!((language, value), (Language::Json, json!({ "functions": [], "total": 0 })));
    daemon.stop().await;
}
