//! WARMUP_FUNCTION.

use crate::harness::{TestDaemon, is_refused};
use levain::{
    config::Verify,
    error::ErrorCode,
    model::ColdStart,
    protocol::message::{DeployRequest, WarmupRequest},
};

fn request(count: u32) -> WarmupRequest {
    WarmupRequest { function_id: "f".into(), count, qualifier: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_ready_when_it_answers() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('ok');").await;
    let warmed = daemon.call(&request(4)).await.unwrap();
    assert_eq!((warmed.warm, warmed.failed), (4, 0));
    assert_eq!((daemon.pools("f").await[0].idle, daemon.worker_pids().len()), (4, 4));
    // A smaller number than that of the existing workers changes nothing.
    assert_eq!(daemon.call(&request(1)).await.unwrap().warm, 4);
    assert_eq!(daemon.invoke("f").await.unwrap().cold_start, ColdStart::None);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_takes_no_traffic_can_be_warmed() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", "export default () => new Response('v1');").await;
    let built = DeployRequest {
        function_id: "f".into(),
        bundle: Some(b"export default () => new Response('v2');".to_vec().into()),
        activate: Some(false),
        ..DeployRequest::default()
    };
    daemon.call(&built).await.unwrap();
    let warmup = WarmupRequest { qualifier: Some("v2".into()), ..request(2) };
    assert_eq!(daemon.call(&warmup).await.unwrap().warm, 2);
    let pools = daemon.pools("f").await;
    assert_eq!(pools.iter().find(|it| it.version == "v2").unwrap().idle, 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_warmed_is_refused() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    daemon.register("f").await;
    assert!(is_refused(&daemon.call(&request(1)).await, ErrorCode::FunctionNotDeployed));
    daemon.redeploy_text("f", None, "throw new Error('no'); export default () => {};").await.unwrap();
    assert!(is_refused(&daemon.call(&request(2)).await, ErrorCode::BundleLoadError));
    assert!(is_refused(&daemon.call(&request(11)).await, ErrorCode::InvalidRequest));
    let unknown = WarmupRequest { qualifier: Some("v9".into()), ..request(1) };
    assert!(is_refused(&daemon.call(&unknown).await, ErrorCode::VersionNotFound));
    daemon.stop().await;
}
