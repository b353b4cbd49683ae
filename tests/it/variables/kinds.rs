//! Secrets and plain variables beside each other: what each command takes for what, who has done it, and who sees it.

use super::{READER, delete, set, strings};
use crate::harness::{DaemonProcess, TestDaemon, is_refused};
use levain::{
    error::ErrorCode,
    model::{SecretAction, SecretText},
    protocol::message::{
        DeleteRequest, DeleteVariablesRequest, ListVariablesRequest, SecretAuditRequest, SetVariablesRequest,
    },
};

/// `f` with the secret `KEY` and the plain variable `WORD`.
async fn start() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", READER).await;
    daemon.call(&secret(&[("KEY", "hunter2hunter2")])).await.unwrap();
    daemon.call(&set(Some("f"), None, &[("WORD", "plain")])).await.unwrap();
    daemon
}

fn secret(pairs: &[(&str, &str)]) -> SetVariablesRequest {
    SetVariablesRequest { is_secret: Some(true), ..set(Some("f"), None, pairs) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_for_all_environments_is_said_to_be_seen_everywhere() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let everywhere = daemon.call(&secret(&[("KEY", "hunter2hunter2"), ("TOO", "hunter2hunter2")])).await.unwrap();
    let [warning] = everywhere.warnings.as_slice() else { panic!("{everywhere:?}") };
    assert!(warning.starts_with("KEY, TOO: every environment sees"), "{warning}");
    assert!(warning.contains("previews") && warning.contains("-e production"), "{warning}");
    let here = set(Some("f"), Some("production"), &[("KEY", "hunter2hunter2")]);
    let here = daemon.call(&SetVariablesRequest { is_secret: Some(true), ..here }).await.unwrap();
    assert!(here.warnings.is_empty(), "{here:?}");
    let plain = daemon.call(&set(Some("f"), None, &[("WORD", "plain")])).await.unwrap();
    assert!(plain.warnings.is_empty(), "{plain:?}");
    daemon.stop().await;
}
