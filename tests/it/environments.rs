//! SET_ENVIRONMENT and LIST_ENVIRONMENTS.

use crate::harness::{TestDaemon, is_refused};
use levain::{
    error::ErrorCode,
    protocol::message::{
        DeleteAliasRequest, DeleteRequest, EnvironmentInfo, EnvironmentsRequest, SetAliasRequest,
        SetEnvironmentRequest, VersionRef,
    },
};

async fn protect(daemon: &TestDaemon, name: &str, protected: bool) -> EnvironmentInfo {
    daemon.call(&SetEnvironmentRequest { name: name.into(), protected }).await.expect("the environment is there")
}

async fn environments(daemon: &TestDaemon) -> Vec<(String, bool, u32)> {
    let environments = daemon.call(&EnvironmentsRequest {}).await.unwrap().environments;
    environments.into_iter().map(|it| (it.name, it.protected, it.aliases)).collect()
}

fn to(alias: &str, environment: Option<&str>) -> SetAliasRequest {
    SetAliasRequest {
        function_id: "f".into(),
        name: alias.into(),
        version: VersionRef::Number(1),
        environment: environment.map(Into::into),
        description: None,
        reason: None,
        dry_run: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_listed_and_their_protection_survives_a_restart() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('a');").await;
    daemon.call(&to("canary", None)).await.unwrap();
    let changed = protect(&daemon, "production", true).await;
    assert_eq!((changed.name.as_str(), changed.protected, changed.aliases), ("production", true, 2));
    assert_eq!(changed.parent, None);
    daemon.restart().await;
    let expected = [("dev", false, 0), ("preview", false, 0), ("production", true, 2), ("staging", false, 0)];
    let expected = expected.map(|(name, protected, aliases)| (name.to_owned(), protected, aliases));
    assert_eq!(environments(&daemon).await, expected);
    assert!(!protect(&daemon, "production", false).await.protected);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_not_there_is_answered_with_those_that_are() {
    let daemon = TestDaemon::start().await;
    let before = environments(&daemon).await;
    let outcome = daemon.call(&SetEnvironmentRequest { name: "moon".into(), protected: true }).await;
    assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{outcome:?}");
    assert!(outcome.unwrap_err().details.unwrap().to_string().contains("staging"));
    let outcome = daemon.call(&SetEnvironmentRequest { name: "a b".into(), protected: true }).await;
    assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{outcome:?}");
    assert_eq!(environments(&daemon).await, before);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_out_of_a_protected_environment() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('a');").await;
    daemon.call(&to("canary", None)).await.unwrap();
    protect(&daemon, "production", true).await;
    let delete_alias = DeleteAliasRequest { function_id: "f".into(), name: "canary".into() };
    let delete = DeleteRequest { function_id: "f".into() };
    let outcomes = [
        daemon.call(&to("canary", Some("dev"))).await.map(drop),
        daemon.call(&SetAliasRequest { dry_run: true, ..to("canary", Some("dev")) }).await.map(drop),
        daemon.call(&delete_alias).await.map(drop),
        daemon.call(&delete).await.map(drop),
    ];
    for outcome in outcomes {
        assert!(is_refused(&outcome, ErrorCode::ApprovalRequired), "{outcome:?}");
        assert!(outcome.unwrap_err().message.contains("levain environments unprotect production"));
    }
    assert!(daemon.invoke("f:canary").await.is_ok() && daemon.invoke("f").await.is_ok());
    protect(&daemon, "production", false).await;
    assert_eq!(daemon.call(&to("canary", Some("dev"))).await.unwrap().environment, "dev");
    daemon.call(&delete_alias).await.unwrap();
    daemon.call(&delete).await.unwrap();
    daemon.stop().await;
}
