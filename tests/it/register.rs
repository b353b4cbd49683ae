//! REGISTER_FUNCTION.

use crate::harness::{TestDaemon, is_refused, refused};
use levain::{
    error::ErrorCode,
    model::{FunctionStatus, SettingsPatch},
    protocol::message::{GetRequest, RegisterRequest},
};

fn request(name: &str) -> RegisterRequest {
    RegisterRequest { name: name.into(), ..RegisterRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_registered_once() {
    let daemon = TestDaemon::start().await;
    let first = daemon.client().call(&request("hello")).await.expect("the name is free");
    assert!(first.created && first.function_id.to_string().starts_with("func-"));
    assert_eq!(
        (first.runtime.as_str(), first.handler.as_str(), first.status),
        ("bun", "default", FunctionStatus::Registered)
    );
    let again = daemon.client().call(&request("hello")).await.expect("a repeated registration is accepted");
    assert_eq!((again.created, &again.function_id), (false, &first.function_id));
    let info =
        daemon.client().call(&GetRequest { function_id: first.function_id.to_string() }).await.expect("it is there");
    assert_eq!((info.name.as_str(), info.settings.memory_mb, info.active_version), ("hello", 256, None));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_with_other_settings_is_a_conflict() {
    let daemon = TestDaemon::start().await;
    daemon.register("hello").await;
    let settings = Some(SettingsPatch { memory_mb: Some(64), ..SettingsPatch::default() });
    let outcome = daemon.client().call(&RegisterRequest { settings, ..request("hello") }).await.map_err(refused);
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_function_is_refused() {
    let daemon = TestDaemon::start().await;
    let settings = Some(SettingsPatch { timeout_seconds: Some(0), ..SettingsPatch::default() });
    let bad = [
        request("no blanks"),
        request(""),
        RegisterRequest { runtime: Some("node".into()), ..request("a") },
        RegisterRequest { handler: Some("not an export".into()), ..request("a") },
        RegisterRequest { settings, ..request("a") },
    ];
    for request in bad {
        let outcome = daemon.client().call(&request).await.map_err(refused);
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{request:?}: {outcome:?}");
    }
    daemon.stop().await;
}
