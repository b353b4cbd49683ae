//! LIST_FUNCTIONS, GET_FUNCTION and UPDATE_FUNCTION.

use crate::harness::{TestDaemon, is_refused, json, until};
use levain::{
    config::Verify,
    error::ErrorCode,
    model::{FunctionStatus, SettingsPatch},
    protocol::{
        ipc::Encoding,
        message::{GetRequest, ListRequest},
    },
};

const CODE: &str = "export default () => new Response('ok');";

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_listed_by_name_and_in_pages() {
    let daemon = TestDaemon::start().await;
    assert_eq!(daemon.call(&ListRequest::default()).await.unwrap().total, 0);
    for name in ["b", "c", "a"] {
        daemon.register(name).await;
    }
    daemon.redeploy_text("b", None, CODE).await.unwrap();
    let all = daemon.call(&ListRequest::default()).await.unwrap();
    let names: Vec<_> = all.functions.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((names, all.total), (vec!["a", "b", "c"], 3));
    let (a, b) = (&all.functions[0], &all.functions[1]);
    assert_eq!((a.status, a.active_version.as_deref(), a.versions, a.warm), (FunctionStatus::Registered, None, 0, 0));
    assert_eq!(
        (b.status, b.active_version.as_deref(), b.versions, b.warm),
        (FunctionStatus::Deployed, Some("v1"), 1, 1)
    );
    let page = daemon.call(&ListRequest { limit: Some(1), offset: Some(1), cursor: None }).await.unwrap();
    assert_eq!((page.functions.len(), page.functions[0].name.as_str(), page.total), (1, "b", 3));
    let none = daemon.call(&ListRequest { offset: Some(7), ..ListRequest::default() }).await.unwrap();
    assert_eq!((none.functions.len(), none.total), (0, 3));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_shown_by_name_and_by_id() {
    let daemon = TestDaemon::start().await;
    let deployed = daemon.deploy_text("f", CODE).await;
    let info = daemon.info("f").await;
    assert_eq!((&info.function_id, info.versions), (&deployed.function_id, 1));
    assert_eq!(info.active_version_id, Some(daemon.versions("f").await[0].id));
    assert_eq!((info.aliases[0].environment.as_str(), info.pools[0].idle), ("production", 1));
    assert!(info.created_at <= info.updated_at);
    assert_eq!(daemon.info(&deployed.function_id.to_string()).await.name, "f");
    let unknown = GetRequest { function_id: "func-00000000-0000-7000-8000-000000000000".into() };
    assert!(is_refused(&daemon.call(&unknown).await, ErrorCode::FunctionNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_settings_reach_the_workers_that_run() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("sleep").await.unwrap();
    let patch = |change: fn(&mut SettingsPatch)| {
        let mut patch = SettingsPatch::default();
        change(&mut patch);
        patch
    };
    daemon.update("sleep", patch(|it| it.max_concurrent_executions = Some(1))).await.unwrap();
    let first = daemon.get_beside("sleep", "/?ms=60000").await;
    daemon.until_pool("sleep", "the first runs", |pool| pool.busy == 1).await;
    let second = daemon.get_beside("sleep", "/?ms=60000").await;
    daemon.until_pool("sleep", "the second waits", |pool| pool.queued == 1).await;
    // A higher ceiling lets the waiting invocation run.
    let info = daemon.update("sleep", patch(|it| it.max_concurrent_executions = Some(2))).await.unwrap();
    assert_eq!(info.settings.max_concurrent_executions, 2);
    daemon.until_pool("sleep", "both run", |pool| pool.busy == 2 && pool.queued == 0).await;
    first.abort();
    second.abort();
    daemon.until_pool("sleep", "both are idle", |pool| pool.idle == 2).await;
    // A lower ceiling stops the surplus workers.
    daemon.update("sleep", patch(|it| it.max_concurrent_executions = Some(1))).await.unwrap();
    until("one worker is left", || async { (daemon.worker_pids().len() == 1).then_some(()) }).await;
    // The floor is started without an invocation, and a shorter timeout applies to the next invocation.
    let raise = patch(|it| {
        it.max_concurrent_executions = Some(4);
        it.warm_workers = Some(3);
        it.timeout_seconds = Some(1);
    });
    daemon.update("sleep", raise).await.unwrap();
    daemon.until_pool("sleep", "the floor is there", |pool| pool.idle == 3).await;
    let answer = daemon.get("sleep", "/?ms=60000").await;
    assert_eq!(answer.code, Some(ErrorCode::Timeout), "{answer:?}");
    assert_eq!(json(&daemon.get("sleep", "/?ms=1").await)["woken"], "timer");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_stands_without_a_call() {
    let mut daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    let floor = |count| SettingsPatch { warm_workers: Some(count), ..SettingsPatch::default() };
    daemon.deploy_text("f", CODE).await;
    daemon.update("f", floor(2)).await.unwrap();
    daemon.until_pool("f", "an update starts the floor", |pool| pool.idle == 2).await;
    daemon.restart().await;
    daemon.until_pool("f", "a restart of the daemon starts the floor", |pool| pool.idle == 2).await;
    daemon.register_with("g", floor(1)).await;
    daemon.redeploy_text("g", None, CODE).await.unwrap();
    daemon.until_pool("g", "a deployment starts the floor", |pool| pool.idle == 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_and_unknown_settings_are_refused_and_change_nothing() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let before = daemon.info("f").await;
    let bad = [
        SettingsPatch { memory_mb: Some(1), ..SettingsPatch::default() },
        SettingsPatch { timeout_seconds: Some(0), ..SettingsPatch::default() },
        SettingsPatch { max_concurrent_executions: Some(0), ..SettingsPatch::default() },
        SettingsPatch { idle_timeout_seconds: Some(86_401), ..SettingsPatch::default() },
        SettingsPatch { warm_workers: Some(11), ..SettingsPatch::default() },
        SettingsPatch { queue_max: Some(7), memory_mb: Some(1), ..SettingsPatch::default() },
    ];
    for patch in bad {
        let outcome = daemon.update("f", patch).await;
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{patch:?}: {outcome:?}");
    }
    let json = daemon.connect().await.with_encoding(Encoding::Json);
    for settings in [r#"{"colour": 1}"#, r#"{"memory_mb": "much"}"#, r#"{"memory_mb": -1}"#] {
        let payload = format!(r#"{{"function_id": "f", "settings": {settings}}}"#);
        let (status, answer) = json.call_raw(0x0C, payload.as_bytes()).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((status, answer["code"].as_str()), (1, Some("INVALID_REQUEST")), "{answer}");
    }
    assert_eq!(daemon.info("f").await, before);
    let outcome = daemon.update("nobody", SettingsPatch::default()).await;
    assert!(is_refused(&outcome, ErrorCode::FunctionNotFound), "{outcome:?}");
    daemon.stop().await;
}
