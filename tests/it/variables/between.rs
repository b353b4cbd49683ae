//! Variables and their environments: changes of the parent, differences, and environments in use.

use super::{READER, delete, found, set};
use crate::harness::TestDaemon;
use levain::{
    error::ErrorCode,
    protocol::{
        field::Body,
        message::{
            CompareEnvironmentsRequest, CreateEnvironmentRequest, DeleteAliasRequest, DeleteEnvironmentRequest,
            DeployRequest, SetAliasRequest, SetEnvironmentRequest, SetVariablesRequest, VersionRef,
        },
    },
};
use serde_json::json;

/// Deploys `f` in the environment `qa`, which has no parent yet.
async fn start() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    daemon.deploy_text("f", READER).await;
    daemon.call(&CreateEnvironmentRequest { name: "qa".into(), ..CreateEnvironmentRequest::default() }).await.unwrap();
    let alias = SetAliasRequest {
        function_id: "f".into(),
        name: "QA".into(),
        version: "v1".into(),
        environment: Some("qa".into()),
        description: None,
        reason: None,
        dry_run: false,
    };
    daemon.call(&alias).await.unwrap();
    daemon
}

fn parent(name: &str) -> SetEnvironmentRequest {
    SetEnvironmentRequest { name: "qa".into(), parent: Some(name.into()), ..SetEnvironmentRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_parent_is_other_variables_for_workers_that_run() {
    let daemon = start().await;
    daemon.call(&set(None, Some("staging"), &[("REGION", "staging")])).await.unwrap();
    daemon.call(&set(None, Some("dev"), &[("REGION", "dev")])).await.unwrap();
    assert_eq!(found(&daemon, "f:QA", "REGION").await, json!(null));
    for (name, expected) in [("staging", json!("staging")), ("dev", json!("dev")), ("", json!(null))] {
        daemon.call(&parent(name)).await.unwrap();
        assert_eq!(found(&daemon, "f:QA", "REGION").await, expected, "{name}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_differ_are_named_and_secrets_by_their_generations() {
    const VALUE: &str = "a-value-that-is-not-told";
    let daemon = start().await;
    daemon.call(&set(None, None, &[("SAME", "1")])).await.unwrap();
    daemon.call(&set(Some("f"), Some("qa"), &[("URL", "qa"), ("EQUAL", "x"), ("ONLY", "1")])).await.unwrap();
    daemon.call(&set(Some("f"), Some("production"), &[("URL", "live"), ("EQUAL", "x")])).await.unwrap();
    let secret = |environment, value| SetVariablesRequest {
        is_secret: Some(true),
        ..set(Some("f"), Some(environment), &[("KEY", value)])
    };
    for (environment, value) in [("qa", VALUE), ("production", "another-value"), ("production", VALUE)] {
        daemon.call(&secret(environment, value)).await.unwrap();
    }
    let request = CompareEnvironmentsRequest { from: "qa".into(), to: "production".into(), function_id: None };
    let compared = daemon.call(&request).await.unwrap();
    let told: Vec<_> =
        compared.functions[0].variables.iter().map(|it| (it.name.as_str(), it.secret, it.from, it.to)).collect();
    // Two secrets are never reported as equal.
    let expected = [("KEY", true, Some(1), Some(2)), ("ONLY", false, Some(0), None), ("URL", false, Some(0), Some(0))];
    assert_eq!(told, expected);
    assert!(!format!("{compared:?}").contains(VALUE));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_with_variables_is_not_deleted() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    daemon.call(&CreateEnvironmentRequest { name: "qa".into(), ..CreateEnvironmentRequest::default() }).await.unwrap();
    daemon.call(&set(Some("f"), Some("qa"), &[("OWN", "1")])).await.unwrap();
    daemon.call(&set(None, Some("qa"), &[("SHARED", "1")])).await.unwrap();
    let request = DeleteEnvironmentRequest { name: "qa".into() };
    let refused = daemon.call(&request).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("variable f:OWN") && refused.message.contains("variable SHARED"), "{refused:?}");
    daemon.call(&delete(Some("f"), Some("qa"), &["OWN"])).await.unwrap();
    daemon.call(&delete(None, Some("qa"), &["SHARED"])).await.unwrap();
    daemon.call(&request).await.unwrap();
    daemon.stop().await;
}

/// The environment has no variables of its own, and no variable changes after it was created.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_environment_takes_variables_from_its_parent_at_once() {
    let daemon = TestDaemon::start().await;
    let deploy = async |alias: &str| {
        let request = DeployRequest {
            function_id: "f".into(),
            bundle: Some(Body::from(READER.as_bytes().to_vec())),
            alias: Some(alias.into()),
            create: true,
            ..DeployRequest::default()
        };
        daemon.call(&request).await.unwrap();
    };
    deploy("STAGING").await;
    daemon.call(&set(Some("f"), Some("staging"), &[("WORD", "inherited")])).await.unwrap();
    let create = |parent: Option<&str>| CreateEnvironmentRequest {
        name: "qa".into(),
        parent: parent.map(Into::into),
        ..CreateEnvironmentRequest::default()
    };
    daemon.call(&create(Some("staging"))).await.unwrap();
    let point = SetAliasRequest {
        function_id: "f".into(),
        name: "QA".into(),
        version: VersionRef::Number(1),
        environment: Some("qa".into()),
        description: None,
        reason: None,
        dry_run: false,
    };
    daemon.call(&point).await.unwrap();
    assert_eq!(found(&daemon, "f:QA", "WORD").await, json!("inherited"));
    // Another environment of the same name has no parent.
    daemon.call(&DeleteAliasRequest { function_id: "f".into(), name: "QA".into() }).await.unwrap();
    daemon.call(&DeleteEnvironmentRequest { name: "qa".into() }).await.unwrap();
    daemon.call(&create(None)).await.unwrap();
    daemon.call(&point).await.unwrap();
    assert_eq!(found(&daemon, "f:QA", "WORD").await, json!(null));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_may_have_variables_of_its_own() {
    let daemon = TestDaemon::start().await;
    let preview = async |name: &str| {
        let request = DeployRequest {
            function_id: "f".into(),
            bundle: Some(Body::from(READER.as_bytes().to_vec())),
            preview: Some(name.into()),
            create: true,
            ..DeployRequest::default()
        };
        daemon.call(&request).await.unwrap().environment
    };
    assert_eq!(preview("pr-1").await, "preview");
    daemon.call(&set(Some("f"), Some("preview"), &[("WORD", "all"), ("MORE", "shared")])).await.unwrap();
    assert_eq!(found(&daemon, "f:preview-pr-1", "WORD").await, json!("all"));
    let (name, parent) = ("preview-pr-1".to_owned(), Some("preview".into()));
    daemon.call(&CreateEnvironmentRequest { name, parent, ..CreateEnvironmentRequest::default() }).await.unwrap();
    daemon.call(&set(Some("f"), Some("preview-pr-1"), &[("WORD", "own")])).await.unwrap();
    // The unchanged code is deployed again, and gets its own environment.
    assert_eq!(preview("pr-1").await, "preview-pr-1");
    assert_eq!(preview("pr-2").await, "preview");
    for (alias, word) in [("preview-pr-1", "own"), ("preview-pr-2", "all")] {
        let function = format!("f:{alias}");
        assert_eq!(found(&daemon, &function, "WORD").await, json!(word), "{alias}");
        assert_eq!(found(&daemon, &function, "MORE").await, json!("shared"), "{alias}");
    }
    daemon.stop().await;
}
