//! Every sample of `bundles/` does what its `request.json` expects, and no faulty one touches another function.

use crate::harness::{TestDaemon, is_refused, samples, text, until};
use levain::{
    config::SandboxMode,
    error::ErrorCode,
    model::SettingsPatch,
    protocol::{
        field::{Body, Fields},
        message::{DeleteRequest, InvokeRequest},
    },
};
use serde_json::Value;

/// Builds the invocation that `request.json` describes.
fn call(name: &str, request: &Value) -> InvokeRequest {
    let string = |key: &str| request[key].as_str().map(str::to_owned);
    let headers = request["headers"].as_object().unwrap().iter();
    InvokeRequest {
        function_id: name.into(),
        method: string("method"),
        path: string("path"),
        headers: Some(Fields(headers.map(|(key, value)| (key.clone(), value.as_str().unwrap().into())).collect())),
        body: string("body").map(|body| Body::from(body.into_bytes())),
        ..InvokeRequest::default()
    }
}

/// Deploys and invokes a sample, and compares the outcome with the expected one.
async fn behaves(daemon: &TestDaemon, sample: &str) {
    let request = samples::request(sample);
    let expect = &request["expect"];
    let name = sample.rsplit('/').next().unwrap();
    let deployed = daemon.deploy_sample(sample).await;
    if let Some(code) = expect["deploy_code"].as_str() {
        let error = deployed.expect_err(sample);
        assert_eq!(error.code.as_str(), code, "{sample}: {error:?}");
        return;
    }
    deployed.unwrap_or_else(|error| panic!("{sample}: {error:?}"));
    let small = SettingsPatch { timeout_seconds: Some(1), memory_mb: Some(64), ..SettingsPatch::default() };
    let settings = if sample.starts_with("faulty/") { small } else { SettingsPatch::default() };
    daemon.update(name, settings).await.unwrap();
    let answer = daemon.invoke_with(call(name, &request)).await.unwrap_or_else(|error| panic!("{sample}: {error:?}"));
    match expect["code"].as_str() {
        Some(code) => {
            assert_eq!((answer.success, answer.status), (false, 0), "{sample}: {answer:?}");
            assert_eq!(answer.code.map(|it| it.as_str()), Some(code), "{sample}: {answer:?}");
            assert!(answer.error.is_some_and(|it| it.len() > 10), "{sample}: the error gives the reason");
        }
        None => {
            assert!(answer.success, "{sample}: {answer:?}");
            assert_eq!(u64::from(answer.status), expect["status"].as_u64().unwrap(), "{sample}");
            let part = expect["body_contains"].as_str().unwrap();
            assert!(text(&answer).contains(part), "{sample}: {}", text(&answer));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_good_sample_answers_what_it_promises() {
    let daemon = TestDaemon::start().await;
    for sample in samples::names("") {
        behaves(&daemon, &sample).await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_faulty_sample_fails_as_it_should_and_alone() {
    let daemon = TestDaemon::start_with(|config| config.workers.memory_poll_ms = 20).await;
    daemon.deploy_sample("hello").await.unwrap();
    let worker = daemon.worker_pids();
    for sample in samples::names("faulty") {
        behaves(&daemon, &sample).await;
        assert!(text(&daemon.get("hello", "/?name=you").await).contains("Hello, you!"), "after {sample}");
    }
    for sample in samples::names("faulty") {
        let name = sample.rsplit('/').next().unwrap().to_owned();
        daemon.call(&DeleteRequest { function_id: name }).await.unwrap();
    }
    until("hello's worker is the only one", || async { (daemon.worker_pids() == worker).then_some(()) }).await;
    daemon.stop().await;
}

/// The version loads at first and fails later, as with an expired date or a missing file.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_begins_to_fail_is_started_less_and_less_often_and_recovers_by_itself() {
    const CALLS: usize = 200;
    let daemon = TestDaemon::start_with(|config| {
        config.functions.idle_timeout_seconds = 1;
        // A file of the machine decides whether the function loads.
        config.sandbox.mode = SandboxMode::Off;
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (flag, starts) = (folder.path().join("works"), folder.path().join("starts"));
    std::fs::write(&flag, "").unwrap();
    let code = format!(
        "import fs from 'node:fs';
        fs.appendFileSync({starts:?}, '.');
        if (!fs.existsSync({flag:?})) {{ console.error('the file has gone'); throw new Error('not today'); }}
        export default () => new Response('works');"
    );
    daemon.deploy_text("moody", &code).await;
    daemon.deploy_sample("hello").await.expect("a good bundle");
    std::fs::remove_file(&flag).unwrap();
    until("its worker is gone", || async { daemon.pools("moody").await.is_empty().then_some(()) }).await;

    let before = std::fs::metadata(&starts).unwrap().len();
    for _ in 0..CALLS {
        let outcome = daemon.invoke("moody").await;
        assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{outcome:?}");
        let error = outcome.expect_err("it throws");
        assert!(error.details.expect("details")["boot_log"].to_string().contains("the file has gone"));
        assert_eq!(daemon.invoke("hello").await.expect("other functions are not affected").status, 200);
    }
    let tried = std::fs::metadata(&starts).unwrap().len() - before;
    assert!((1..20).contains(&tried), "{tried} starts for {CALLS} calls");
    let pools = daemon.pools("moody").await;
    assert!(pools[0].failed_starts > 0 && pools[0].retry_in_ms <= 15_000, "{pools:?}");

    std::fs::write(&flag, "").unwrap();
    until("it works again", || async { daemon.invoke("moody").await.is_ok().then_some(()) }).await;
    assert_eq!(daemon.pools("moody").await[0].failed_starts, 0);
    daemon.stop().await;
}
