//! GET_LOGS.

use crate::{
    harness::{TestDaemon, get, is_refused, until},
    protocol::wire::{GET_LOGS, Language, Wire, frame},
};
use levain::{
    error::ErrorCode,
    protocol::{
        message::{LogLine, LogsRequest, LogsResponse},
        worker::LogLevel,
    },
};
use serde_json::json;
use std::time::Duration;

/// Logs one line at each level, then answers; `/fail` throws instead.
const CODE: &str = "export default (req) => {
    const path = new URL(req.url).pathname;
    console.debug(path, 'debug');
    console.info(path, 'info');
    console.warn(path, 'warn');
    console.error(path, 'error');
    if (path === '/fail') throw new RangeError('out of reach');
    return new Response('ok');
};";

fn request() -> LogsRequest {
    LogsRequest { function_id: "f".into(), ..LogsRequest::default() }
}

fn messages(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.message.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_chosen_by_version() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", CODE).await;
    daemon.get("f", "/1").await;
    daemon.redeploy_text("f", None, &format!("{CODE} // second")).await.unwrap();
    daemon.get("f", "/2").await;
    daemon.until_logged("f", "/2 error").await;
    let of = async |function: &str, qualifier: Option<&str>| {
        let qualifier = qualifier.map(Into::into);
        daemon.call(&LogsRequest { function_id: function.into(), qualifier, ..request() }).await
    };
    for (function, qualifier, version) in
        [("f:v1", None, "v1"), ("f", Some("2"), "v2"), ("f:LIVE", None, "v2"), ("f:ROLLBACK", None, "v1")]
    {
        let page = of(function, qualifier).await.unwrap();
        assert_eq!(page.total, 4, "{function} {qualifier:?}");
        assert!(page.logs.iter().all(|line| line.version == version), "{function} {qualifier:?}");
    }
    assert!(is_refused(&of("f:v9", None).await, ErrorCode::VersionNotFound));
    assert!(is_refused(&of("f:DEV", None).await, ErrorCode::AliasNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_chosen_by_invocation_and_level() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", CODE).await;
    assert_eq!(
        daemon.call(&request()).await.unwrap(),
        LogsResponse { logs: vec![], total: 0, dropped: 0, next_cursor: None }
    );
    let first = daemon.get("f", "/1").await;
    daemon.get("f", "/2").await;
    daemon.until_logged("f", "/2 error").await;
    let all = daemon.call(&request()).await.unwrap();
    assert_eq!((all.total, all.dropped), (8, 0));
    let expected = ["/1 debug", "/1 info", "/1 warn", "/1 error", "/2 debug", "/2 info", "/2 warn", "/2 error"];
    assert_eq!(messages(&all.logs), expected);
    assert!(all.logs.windows(2).all(|it| it[0].timestamp <= it[1].timestamp));

    let own = LogsRequest { execution_id: Some(first.execution_id.to_string()), ..request() };
    let lines = daemon.call(&own).await.unwrap();
    assert_eq!((lines.total, messages(&lines.logs)), (4, expected[..4].to_vec()));
    let bad = LogsRequest { level: Some(LogLevel::Warn), ..own };
    assert_eq!(messages(&daemon.call(&bad).await.unwrap().logs), ["/1 warn", "/1 error"]);
    let warn = LogsRequest { level: Some(LogLevel::Error), ..request() };
    assert_eq!(messages(&daemon.call(&warn).await.unwrap().logs), ["/1 error", "/2 error"]);

    // Pages count from the newest line; within a page the oldest is first.
    let page = LogsRequest { limit: Some(3), offset: Some(1), ..request() };
    let page = daemon.call(&page).await.unwrap();
    assert_eq!((page.total, messages(&page.logs)), (8, expected[4..7].to_vec()));
    let beyond = LogsRequest { offset: Some(100), ..request() };
    let beyond = daemon.call(&beyond).await.unwrap();
    assert_eq!((beyond.total, beyond.logs.len()), (8, 0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_chosen_by_time() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", CODE).await;
    daemon.get("f", "/1").await;
    let last = daemon.until_logged("f", "/1 error").await;
    // The next invocation's lines are later by at least a millisecond.
    until("the clock goes on", || async { (levain::model::Timestamp::now() > last.timestamp).then_some(()) }).await;
    daemon.get("f", "/2").await;
    let second = daemon.until_logged("f", "/2 debug").await.timestamp.to_string();
    daemon.until_logged("f", "/2 error").await;
    let count = async |request: LogsRequest| daemon.call(&request).await.unwrap().total;
    assert_eq!(count(LogsRequest { since: Some("1h".into()), ..request() }).await, 8);
    assert_eq!(count(LogsRequest { since: Some(second), ..request() }).await, 4);
    assert_eq!(count(LogsRequest { since: Some("2100-01-01T00:00:00Z".into()), ..request() }).await, 0);
    assert_eq!(count(LogsRequest { end_date: Some(last.timestamp.to_string()), ..request() }).await, 4);
    assert_eq!(count(LogsRequest { end_date: Some("1h".into()), ..request() }).await, 0);
    for bad in ["yesterday", "", "15", "m"] {
        let outcome = daemon.call(&LogsRequest { since: Some(bad.into()), ..request() }).await;
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{bad}: {outcome:?}");
    }
    let outcome = daemon.call(&LogsRequest { execution_id: Some("nonsense".into()), ..request() }).await;
    assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{outcome:?}");
    let outcome = daemon.call(&LogsRequest { function_id: "nobody".into(), ..request() }).await;
    assert!(is_refused(&outcome, ErrorCode::FunctionNotFound), "{outcome:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_lines_follow_as_they_are_written() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", CODE).await;
    daemon.get("f", "/before").await;
    daemon.until_logged("f", "/before error").await;
    let client = daemon.connect().await;
    let follow = LogsRequest { follow: true, level: Some(LogLevel::Warn), ..request() };
    let mut answer = client.call_streaming(&follow).unwrap();
    let first: LogsResponse = answer.next_partial().await.unwrap().unwrap();
    assert_eq!((first.total, messages(&first.logs)), (2, vec!["/before warn", "/before error"]));
    for path in ["/1", "/2"] {
        let called = daemon.get("f", path).await;
        for level in ["warn", "error"] {
            let wait = tokio::time::timeout(Duration::from_secs(20), answer.next_partial::<LogsResponse>());
            let part = wait.await.expect("the line follows").unwrap().unwrap();
            assert_eq!(messages(&part.logs), [format!("{path} {level}")]);
            assert_eq!(part.logs[0].execution_id.as_ref(), Some(&called.execution_id));
        }
    }
    drop((answer, client));
    daemon.stop().await;
}

/// A follower that cannot send falls behind the lines of all functions, and reads its own from the database later.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_reads_late_misses_none_of_its_lines() {
    const LINES: usize = 100;
    let daemon = TestDaemon::start().await;
    // More than the buffers between the daemon and a client that does not read.
    let large = "export default () => {
        for (let i = 0; i < 100; i++) console.error(i, 'x'.repeat(16000));
        return new Response('');
    };";
    // More than the lines that a follower may lag behind.
    let loud =
        "export default () => { for (let i = 0; i < 4000; i++) console.log('line', i); return new Response(''); };";
    daemon.deploy_text("f", large).await;
    daemon.deploy_text("loud", loud).await;
    let mut follower = Wire::connect(&daemon.socket());
    let follow = json!({ "function_id": "f", "follow": true, "level": "error" });
    follower.send(&frame(1, GET_LOGS, &Language::Json.write(&follow)));
    follower.answer();
    daemon.get("f", "/").await;
    daemon.until_logged("f", "99 ").await;
    daemon.get("loud", "/").await;
    daemon.until_logged("loud", "line 3999").await;
    let mut seen = Vec::new();
    while seen.len() < LINES {
        let part: LogsResponse = serde_json::from_value(follower.answer().read().1).unwrap();
        seen.extend(part.logs.iter().map(|line| line.message.split(' ').next().unwrap().to_owned()));
    }
    assert_eq!(seen, (0..LINES).map(|it| it.to_string()).collect::<Vec<_>>());
    drop(follower);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_invocation_leaves_a_line_of_the_daemon() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", CODE).await;
    let answer = daemon.invoke_with(get("f", "/fail")).await.unwrap();
    assert_eq!(answer.code, Some(ErrorCode::HandlerError));
    let line = daemon.until_logged("f", "out of reach").await;
    assert_eq!((line.level, line.stream.as_str()), (LogLevel::Error, "system"));
    assert_eq!(line.execution_id, Some(answer.execution_id));
    assert!(line.message.starts_with("HANDLER_ERROR: RangeError: out of reach"), "{}", line.message);
    assert!(line.message.contains("bundle.js:7"), "its stack: {}", line.message);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_writes_too_much_is_dropped_and_counted() {
    let daemon = TestDaemon::start_with(|config| config.logs.lines_per_second_max = 100).await;
    let flood =
        "export default () => { for (let i = 0; i < 500; i++) console.log('line', i); return new Response('ok'); };";
    daemon.deploy_text("f", flood).await;
    daemon.get("f", "/").await;
    // The count is known when the next line is stored, or when the worker has ended.
    let lines = until("all lines are counted", || async {
        daemon.get("f", "/").await;
        let lines = daemon.call(&LogsRequest { limit: Some(1_000), ..request() }).await.unwrap();
        (lines.dropped > 0).then_some(lines)
    })
    .await;
    assert!(lines.total >= 100 && lines.logs.iter().any(|line| line.message == "line 0"), "{} lines", lines.total);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_outlive_the_daemon() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", CODE).await;
    daemon.get("f", "/1").await;
    daemon.restart().await;
    assert_eq!(daemon.call(&request()).await.unwrap().total, 4);
    daemon.stop().await;
}
