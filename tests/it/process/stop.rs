//! `levain stop`.

use crate::harness::{DaemonProcess, Gate};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_until_the_daemon_is_gone() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let pid = daemon.pid();
    let stopped = daemon.cli(&["stop"]).await.ok();
    assert!(stopped.contains("has stopped") && stopped.contains(&format!("(process {pid})")), "{stopped}");
    assert!(!daemon.socket().exists(), "it was the last to go");
    let again = daemon.cli(&["stop"]).await;
    assert!(again.code == Some(10) && again.stderr.contains("no daemon answers"), "{again:?}");
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_waits_for_a_call_is_reported_after_the_time() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let gate = Gate::shut(data.path());
    let file = data.path().join("slow.js");
    fs::write(&file, format!("export default async () => {{ {} return new Response('late'); }};", gate.wait()))
        .unwrap();
    daemon.cli(&["deploy", "slow", file.to_str().unwrap()]).await.ok();
    let call = async { daemon.cli(&["invoke", "slow"]).await };
    let stop = async {
        gate.until_reached().await;
        let early = daemon.cli(&["--json", "stop", "--timeout", "1s"]).await;
        assert_eq!((early.code, early.json()["code"].as_str()), (Some(6), Some("TIMEOUT")), "{early:?}");
        gate.open();
    };
    let (answer, ()) = tokio::join!(call, stop);
    assert_eq!(answer.ok(), "late", "a running call ends first");
    assert!(daemon.ended().await.success());
}
