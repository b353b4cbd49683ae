//! Tests of `levain invoke`: how it shows the answer.

use super::super::print::plain;
use super::*;
use crate::protocol::field::Body;

fn failed() -> InvokeResponse {
    InvokeResponse {
        success: false,
        status: 0,
        headers: Fields::default(),
        body: Body::default(),
        execution_time_ms: 12.34,
        execution_id: "exec-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
        version: "v1".parse().expect("a name"),
        cold_start: ColdStart::Spawned,
        queue_ms: 0.0,
        start_ms: 10.0,
        error: Some("Error: boom".into()),
        code: Some(ErrorCode::HandlerError),
        details: Some(serde_json::json!({"name": "Error", "exit": 1, "stack": "Error: boom\n    at index.ts:3:9"})),
    }
}

#[test]
fn a_failure_shows_code_message_and_stack_once() {
    assert_eq!(plain(&failure_text(&failed())), "error[HANDLER_ERROR]: Error: boom\n    at index.ts:3:9\nexit: 1");
    let bare = InvokeResponse { details: None, ..failed() };
    assert_eq!(plain(&failure_text(&bare)), "error[HANDLER_ERROR]: Error: boom");
}

#[test]
fn the_timing_says_what_was_waited_for() {
    assert_eq!(
        timing_text(&failed()),
        "v1, cold (spawned), 12.3 ms (queue 0 µs, start 10.0 ms), exec-0190c1d2-aaaa-7bbb-8ccc-0123456789ab"
    );
}

#[test]
fn the_head_repeats_repeated_headers() {
    let pair = |value: &str| ("set-cookie".to_owned(), value.to_owned());
    let headers = Fields(vec![pair("a=1"), pair("b=2")]);
    assert_eq!(head_text(200, &headers), "HTTP 200\nset-cookie: a=1\nset-cookie: b=2\n\n");
}
