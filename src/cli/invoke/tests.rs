//! Tests of `levain invoke`: the request that it sends, and how it shows the answer.

use super::super::print::plain;
use super::*;
use crate::error::ErrorCode;
use clap::Parser;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    request: RequestArgs,
}

fn request(line: &[&str]) -> InvokeRequest {
    let line = Line::try_parse_from(["x", "hello"].iter().chain(line)).expect("valid arguments");
    line.request.request().expect("readable data")
}

#[test]
fn json_data_gets_its_content_type_unless_one_is_given() {
    let typed = request(&["--data", r#"{"a": 1}"#]);
    assert_eq!(
        typed.headers.and_then(|it| it.get("content-type").map(str::to_owned)).as_deref(),
        Some("application/json")
    );
    assert_eq!(request(&["--data", "plain {"]).headers, None);
    let given = request(&["--data", "1", "-H", "Content-Type: text/plain"]).headers.expect("a header");
    assert_eq!(given.0, [("Content-Type".to_owned(), "text/plain".to_owned())]);
}

#[test]
fn data_is_text_or_a_file() {
    assert_eq!(request(&["--data", "a@b"]).body, Some(Body(Bytes::from_static(b"a@b"))));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), [0, 159, 255]).expect("written");
    let data = format!("@{}", file.path().display());
    assert_eq!(request(&["--data", &data]).body, Some(Body(Bytes::from_static(&[0, 159, 255]))));
    let error = read_data("@/no/such/file").expect_err("no file");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().starts_with("cannot read /no/such/file: "), "{error}");
}

#[test]
fn a_request_without_options_leaves_everything_to_the_daemon() {
    assert_eq!(request(&[]), InvokeRequest { function_id: "hello".into(), ..InvokeRequest::default() });
    assert_eq!(request(&["-X", "put"]).method.as_deref(), Some("PUT"));
}

fn failed() -> InvokeResponse {
    InvokeResponse {
        success: false,
        status: 0,
        headers: Fields::default(),
        body: Body::default(),
        execution_time_ms: 12.34,
        execution_id: "exec-1".into(),
        version: "v1".into(),
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
    assert_eq!(plain(&failure_text(&failed())), "HANDLER_ERROR Error: boom\n    at index.ts:3:9\nexit: 1");
    let bare = InvokeResponse { details: None, ..failed() };
    assert_eq!(plain(&failure_text(&bare)), "HANDLER_ERROR Error: boom");
}

#[test]
fn the_timing_says_what_was_waited_for() {
    assert_eq!(timing_text(&failed()), "v1, cold (spawned), 12.3 ms (queue 0 µs, start 10.0 ms), exec-1");
}

#[test]
fn the_head_repeats_repeated_headers() {
    let pair = |value: &str| ("set-cookie".to_owned(), value.to_owned());
    let headers = Fields(vec![pair("a=1"), pair("b=2")]);
    assert_eq!(head_text(200, &headers), "HTTP 200\nset-cookie: a=1\nset-cookie: b=2\n\n");
}
