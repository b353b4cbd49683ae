//! Limits of a secret's reach: unapproved code does not get it, and a backup does not contain it in clear.

use super::{HASHER, deploy, hash, invoke, secret, traces};
use crate::harness::{DaemonProcess, TestDaemon, until};
use levain::protocol::{
    field::Body,
    message::{DecideRequest, DeployRequest, SetEnvironmentRequest},
};
use std::fs;

const VALUE: &str = "planted-value-that-nobody-sees";

/// Logs the length of the variable found while the module was loaded.
const CURIOUS: &str = "const found = process.env.KEY;
    console.log(`found ${found.length} bytes`);
    export default () => new Response(String(found.length));";

#[tokio::test(flavor = "multi_thread")]
async fn code_gets_the_secrets_of_a_protected_environment_once_it_is_approved() {
    let daemon = TestDaemon::start().await;
    let client = daemon.client();
    deploy(client, "f", "export default () => new Response('first');").await;
    daemon.call(&secret(Some("f"), Some("production"), &[("KEY", VALUE)])).await.unwrap();
    let protect =
        SetEnvironmentRequest { name: "production".into(), protected: Some(true), ..SetEnvironmentRequest::default() };
    daemon.call(&protect).await.unwrap();
    for dry_run in [true, false] {
        let bundle = Some(Body::from(CURIOUS.as_bytes().to_vec()));
        let request = DeployRequest { function_id: "f".into(), bundle, dry_run, ..DeployRequest::default() };
        let waiting = daemon.call(&request).await.unwrap();
        assert_eq!(waiting.status.name(), if dry_run { "checked" } else { "pending_approval" });
    }
    // The version was loaded all the same, with a placeholder for the secret.
    let hidden = levain::secrets::NOT_APPROVED.len();
    until("both loads have logged their finding", async || {
        let said: Vec<_> = daemon.logs("f").await.into_iter().map(|it| it.message).collect();
        let found = said.iter().filter(|it| it.starts_with("found ")).count();
        assert!(said.iter().all(|it| !it.contains(&format!("found {} bytes", VALUE.len()))), "{said:?}");
        (found == 2 && said.contains(&format!("found {hidden} bytes"))).then_some(())
    })
    .await;
    let waiting = daemon.deployments("f").await.remove(0);
    let approve = DecideRequest { deployment_id: waiting.deployment_id, approve: true, reason: None };
    assert_eq!(daemon.call(&approve).await.unwrap().status.name(), "deployed");
    assert_eq!(invoke(client, "f").await, VALUE.len().to_string());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_secrets_sealed_and_works_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let (data, restored) = (folder.path().join("data"), folder.path().join("restored"));
    fs::create_dir(&data).unwrap();
    let daemon = DaemonProcess::start(&data).await;
    let client = daemon.client().await;
    deploy(&client, "f", HASHER).await;
    client.call(&secret(Some("f"), None, &[("KEY", VALUE)])).await.unwrap();
    assert_eq!(invoke(&client, "f").await, hash(VALUE));
    let file = folder.path().join("node.levain");
    daemon.cli(&["backup", file.to_str().unwrap()]).await.ok();
    daemon.kill().await;
    let unpacked = folder.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    levain::backup::unpack(fs::File::open(&file).unwrap(), &unpacked).unwrap();
    let key = fs::read_to_string(data.join("master.key")).unwrap();
    assert_eq!(super::files_with(&unpacked, &[VALUE, key.trim()]), [""; 0]);

    levain::daemon::restore(fs::File::open(&file).unwrap(), &restored).unwrap();
    let refused = DaemonProcess::try_spawn(DaemonProcess::serve(&restored).await, &restored).await;
    let reason = refused.err().expect("its key is not there");
    assert!(reason.contains("master key"), "{reason}");
    fs::copy(data.join("master.key"), restored.join("master.key")).unwrap();
    let daemon = DaemonProcess::start(&restored).await;
    assert_eq!(invoke(&daemon.client().await, "f").await, hash(VALUE));
    assert_eq!(traces(&daemon, &restored, &[VALUE]), [""; 0]);
}
