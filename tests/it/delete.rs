//! DELETE_FUNCTION and DELETE_VERSION.

use crate::harness::{Gate, TestDaemon, is_refused, text, until};
use levain::{
    error::ErrorCode,
    model::{FunctionStatus, SettingsPatch},
    protocol::message::{
        DeleteRequest, DeleteVersionRequest, DeployRequest, GetRequest, ListRequest, RollbackRequest, VersionRef,
        VersionsRequest,
    },
};

const V1: &str = "export default () => new Response('v1');";
const V2: &str = "export default () => new Response('v2');";

fn function(name: &str) -> DeleteRequest {
    DeleteRequest { function_id: name.into() }
}

fn version(label: &str) -> DeleteVersionRequest {
    DeleteVersionRequest { function_id: "f".into(), version: label.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_function_is_gone_and_its_name_is_free() {
    let daemon = TestDaemon::start().await;
    let deployed = daemon.deploy_text("f", V1).await;
    let deleted = daemon.call(&function("f")).await.unwrap();
    assert_eq!((deleted.function_id, deleted.status), (deployed.function_id, FunctionStatus::Deleted));
    daemon.until_no_workers().await;
    for name in ["f", &deployed.function_id.to_string()] {
        assert!(is_refused(&daemon.invoke(name).await, ErrorCode::FunctionNotFound));
        let get = GetRequest { function_id: name.into() };
        assert!(is_refused(&daemon.call(&get).await, ErrorCode::FunctionNotFound));
        let versions = VersionsRequest { function_id: name.into(), ..VersionsRequest::default() };
        assert!(is_refused(&daemon.call(&versions).await, ErrorCode::FunctionNotFound));
        assert!(is_refused(&daemon.call(&function(name)).await, ErrorCode::FunctionNotFound));
    }
    assert_eq!(daemon.call(&ListRequest::default()).await.unwrap().total, 0);
    assert!(
        daemon.bundle_folder(deployed.function_id.to_string(), "v1").join("bundle.js").exists(),
        "bundles are kept"
    );

    let again = daemon.deploy_text("f", V2).await;
    assert_ne!(again.function_id, deployed.function_id);
    assert_eq!((again.number, text(&daemon.invoke("f").await.unwrap())), (1, "v2"));
    assert_eq!(daemon.deployments("f").await.len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_deletion_waiting_calls_fail_and_running_ones_finish() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    let one = SettingsPatch { max_concurrent_executions: Some(1), ..SettingsPatch::default() };
    daemon.register_with("f", one).await;
    daemon.redeploy_text("f", None, &gate.function()).await.unwrap();
    let running = daemon.get_beside("f", "/").await;
    gate.until_reached().await;
    let waiting = daemon.get_beside("f", "/").await;
    daemon.until_pool("f", "it waits", |pool| pool.queued == 1).await;
    daemon.call(&function("f")).await.unwrap();
    let refused = waiting.await.unwrap();
    assert!(is_refused(&refused, ErrorCode::FunctionNotFound), "{refused:?}");
    assert!(refused.unwrap_err().message.contains("deleted"));
    gate.open();
    let answer = running.await.unwrap().unwrap();
    assert!(answer.success && text(&answer) == "through", "{answer:?}");
    daemon.until_no_workers().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_in_use_stays_and_another_goes_for_good() {
    let daemon = TestDaemon::start().await;
    let deployed = daemon.deploy_text("f", V1).await;
    daemon.redeploy_text("f", None, V2).await.unwrap();
    let outcome = daemon.call(&version("v2")).await;
    assert!(is_refused(&outcome, ErrorCode::VersionInUse), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("LIVE"));
    assert!(is_refused(&daemon.call(&version("v9")).await, ErrorCode::VersionNotFound));

    let deleted = daemon.call(&version("v1")).await.unwrap();
    assert_eq!((deleted.function_id, deleted.version.as_str()), (deployed.function_id, "v1"));
    assert!(!daemon.bundle_folder(deployed.function_id.to_string(), "v1").exists());
    let labels: Vec<_> = daemon.versions("f").await.into_iter().map(|it| it.version).collect();
    assert_eq!(labels, ["v2"]);
    assert!(is_refused(&daemon.call(&version("v1")).await, ErrorCode::VersionNotFound));
    assert!(is_refused(&daemon.invoke("f:v1").await, ErrorCode::VersionNotFound));
    let rollback = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    assert!(is_refused(&daemon.call(&rollback).await, ErrorCode::VersionNotFound));
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "v2");
    until("the workers of v1 end", || async { (daemon.worker_pids().len() == 1).then_some(()) }).await;
    // The history stays, and numbers are not used again, even when the newest version is deleted.
    assert_eq!(daemon.deployments("f").await.len(), 2);
    let v3 = DeployRequest {
        function_id: "f".into(),
        bundle: Some(V1.as_bytes().to_vec().into()),
        activate: Some(false),
        ..DeployRequest::default()
    };
    assert_eq!(daemon.call(&v3).await.unwrap().version, "v3");
    daemon.call(&version("v3")).await.unwrap();
    let next = daemon.redeploy_text("f", None, V1).await.unwrap();
    assert_eq!((next.version.as_str(), next.number), ("v4", 4));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_named_by_its_number_too() {
    let mut daemon = TestDaemon::start().await;
    let function = daemon.deploy_text("f", V1).await.function_id;
    for (label, text) in [(Some("a"), V2), (Some("b"), V1), (None, "export default () => new Response('v4');")] {
        daemon.redeploy_text("f", label, text).await.unwrap();
    }
    // An old database may have a version whose label is the number of another one.
    let (database, folder) = (daemon.data_dir().join("levain.db"), daemon.bundle_folder(function.to_string(), "a"));
    daemon
        .restart_with(|_| {
            let database = rusqlite::Connection::open(database).unwrap();
            let sql = "DROP TRIGGER function_versions_are_immutable; \
                 UPDATE function_versions SET version = '1' WHERE version = 'a'";
            database.execute_batch(sql).unwrap();
            std::fs::rename(&folder, folder.with_file_name("1")).unwrap();
        })
        .await;
    let delete = |version: VersionRef| DeleteVersionRequest { function_id: "f".into(), version };
    // A label of digits is preferred to a number, as everywhere; a JSON number is always a number.
    assert_eq!(daemon.call(&delete("1".into())).await.unwrap().version, "1");
    assert_eq!(daemon.call(&delete("1".into())).await.unwrap().version, "v1");
    assert_eq!(daemon.call(&delete(VersionRef::Number(3))).await.unwrap().version, "b");
    assert!(is_refused(&daemon.call(&delete(VersionRef::Number(3))).await, ErrorCode::VersionNotFound));
    assert!(is_refused(&daemon.call(&delete(VersionRef::Number(4))).await, ErrorCode::VersionInUse));
    assert_eq!(daemon.versions("f").await.len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_on_a_deleted_version_finishes() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    daemon.deploy_text("f", &gate.function()).await;
    let running = daemon.get_beside("f", "/").await;
    gate.until_reached().await;
    daemon.redeploy_text("f", None, V2).await.unwrap();
    daemon.call(&version("v1")).await.unwrap();
    gate.open();
    let answer = running.await.unwrap().unwrap();
    assert!(answer.success && answer.version == "v1", "{answer:?}");
    until("the worker of v1 ends", || async { (daemon.worker_pids().len() == 1).then_some(()) }).await;
    daemon.stop().await;
}
