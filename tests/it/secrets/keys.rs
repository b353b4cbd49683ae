//! The master key: created, missing, wrong, readable by others, rotated, and rotated with interruptions; and rows that
//! were tampered with.

use super::{HASHER, deploy, hash, invoke, secret, until_answers};
use crate::harness::{DaemonProcess, is_refused, refused};
use levain::{
    client::ClientError,
    crash_point::{CRASH_AT_VARIABLE, ROTATION_STEPS},
    error::ErrorCode,
    model::SecretAction,
    protocol::message::{
        InvokeRequest, InvokeResponse, RotateMasterKeyRequest, SecretAuditRequest, SecretGenerationsRequest,
        StatusRequest,
    },
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

fn key_file(data: &Path) -> PathBuf {
    data.join("master.key")
}

/// Prepares a data directory with a function that has a secret and one without.
async fn prepared(data: &Path) {
    let daemon = DaemonProcess::start(data).await;
    let client = daemon.client().await;
    assert!(!key_file(data).exists(), "the key is not created before it is needed");
    deploy(&client, "f", HASHER).await;
    deploy(&client, "plain", HASHER).await;
    client.call(&secret(Some("f"), None, &[("KEY", "hunter22")])).await.unwrap();
    client.call(&secret(Some("f"), Some("staging"), &[("OTHER", "hunter23")])).await.unwrap();
    assert_eq!(fs::metadata(key_file(data)).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.kill().await;
}

/// Error of a daemon that refuses to start.
async fn refusal(data: &Path) -> String {
    match DaemonProcess::try_spawn(DaemonProcess::serve(data).await, data).await {
        Ok(_) => panic!("it starts"),
        Err(reason) => reason,
    }
}

async fn try_invoke(client: &levain::client::Client, name: &str) -> Result<InvokeResponse, levain::error::Error> {
    let request = InvokeRequest { function_id: name.into(), ..InvokeRequest::default() };
    client.call(&request).await.map_err(refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_key_nothing_starts_and_nothing_is_damaged() {
    let data = tempfile::tempdir().unwrap();
    prepared(data.path()).await;
    let right = fs::read(key_file(data.path())).unwrap();
    fs::remove_file(key_file(data.path())).unwrap();
    let reason = refusal(data.path()).await;
    assert!(reason.contains("master key") && reason.contains("restore it"), "{reason}");
    assert!(!key_file(data.path()).exists(), "the daemon does not create another key");

    let other = tempfile::tempdir().unwrap();
    prepared(other.path()).await;
    fs::copy(key_file(other.path()), key_file(data.path())).unwrap();
    let reason = refusal(data.path()).await;
    assert!(reason.contains("is not the one that secrets were sealed with"), "{reason}");

    for (content, mode, expected) in
        [(&b"nonsense"[..], 0o600, "64 hexadecimal digits"), (&right, 0o644, "chmod 600"), (&right, 0o660, "chmod 600")]
    {
        fs::write(key_file(data.path()), content).unwrap();
        fs::set_permissions(key_file(data.path()), fs::Permissions::from_mode(mode)).unwrap();
        let reason = refusal(data.path()).await;
        assert!(reason.contains(expected), "{reason}");
    }
    fs::set_permissions(key_file(data.path()), fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    assert_eq!(invoke(&daemon.client().await, "f").await, hash("hunter22"));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_without_secrets_can_run_without_the_key() {
    let data = tempfile::tempdir().unwrap();
    prepared(data.path()).await;
    let right = fs::read(key_file(data.path())).unwrap();
    fs::remove_file(key_file(data.path())).unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_SECRETS_ALLOW_MISSING_KEY", "on");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let client = daemon.client().await;
    assert_eq!(invoke(&client, "plain").await, "none");
    for _ in 0..3 {
        let outcome = try_invoke(&client, "f").await;
        assert!(is_refused(&outcome, ErrorCode::SecretUnavailable), "{outcome:?}");
    }
    assert!(outcome_message(&client).await.contains("restore it"));
    let status = client.call(&StatusRequest {}).await.unwrap();
    assert!(status.secrets_unavailable.is_some_and(|it| it.contains("restore it")));
    assert!(daemon.cli(&["status"]).await.ok().contains("unavailable: secrets cannot be decrypted: the master key"));
    let outcome = client.call(&secret(Some("plain"), None, &[("KEY", "hunter24")])).await.map_err(refused);
    assert!(is_refused(&outcome, ErrorCode::SecretUnavailable), "{outcome:?}");
    let outcome = client.call(&RotateMasterKeyRequest {}).await.map_err(refused);
    assert!(is_refused(&outcome, ErrorCode::SecretUnavailable), "{outcome:?}");
    assert!(!key_file(data.path()).exists());
    daemon.kill().await;
    fs::write(key_file(data.path()), right).unwrap();
    fs::set_permissions(key_file(data.path()), fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    assert_eq!(invoke(&client, "f").await, hash("hunter22"));
    assert_eq!(client.call(&StatusRequest {}).await.unwrap().secrets_unavailable, None);
    daemon.kill().await;
}

async fn outcome_message(client: &levain::client::Client) -> String {
    try_invoke(client, "f").await.unwrap_err().message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_says_so_and_hurts_nobody_else() {
    let changes = [
        // The sealed value with another byte.
        "UPDATE secret_generations SET value = CAST(value || x'00' AS BLOB)",
        // The value of another secret.
        "UPDATE secret_generations SET value = (SELECT value FROM secret_generations ORDER BY sealed_at DESC LIMIT 1)",
        // The whole row of another secret, except its place.
        "UPDATE secret_generations SET (value, wrapped_key) = \
            (SELECT value, wrapped_key FROM secret_generations ORDER BY sealed_at DESC LIMIT 1)",
        // The row is assigned to another function.
        "UPDATE variables SET function_id = NULL WHERE key = 'KEY'",
        "UPDATE variables SET environment = 'production' WHERE key = 'KEY'",
        "UPDATE secret_generations SET sealed_at = sealed_at + 100",
        "DELETE FROM secret_generations WHERE sealed_at = (SELECT min(sealed_at) FROM secret_generations)",
    ];
    let data = tempfile::tempdir().unwrap();
    prepared(data.path()).await;
    let database = data.path().join("levain.db");
    rusqlite::Connection::open(&database).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let good = fs::read(&database).unwrap();
    for change in changes {
        fs::write(&database, &good).unwrap();
        for leftover in ["levain.db-wal", "levain.db-shm"] {
            let _ = fs::remove_file(data.path().join(leftover));
        }
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute(change, []).unwrap_or_else(|error| panic!("{change}: {error}"));
        drop(connection);
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        let outcome = try_invoke(&client, "f").await;
        assert!(is_refused(&outcome, ErrorCode::SecretUnavailable), "{change}: {outcome:?}");
        let message = outcome.unwrap_err().message;
        assert!(message.contains("KEY") && message.contains("set it again"), "{change}: {message}");
        if !change.contains("NULL") {
            assert_eq!(invoke(&client, "plain").await, "none", "{change}");
            client.call(&secret(Some("f"), None, &[("KEY", "hunter25")])).await.unwrap();
            if !change.contains("environment") {
                until_answers_in_time(&client, &hash("hunter25")).await;
            }
        }
        daemon.kill().await;
    }
}

/// The back-off after the failed start has to pass first.
async fn until_answers_in_time(client: &levain::client::Client, expected: &str) {
    crate::harness::until("the secret that was set again is there", || async {
        let answer = try_invoke(client, "f").await.ok()?;
        (answer.body.0 == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_former_generation_is_in_the_way_of_no_rotation() {
    let data = tempfile::tempdir().unwrap();
    prepared(data.path()).await;
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    client.call(&secret(Some("f"), None, &[("KEY", "hunter23")])).await.unwrap();
    client.call(&secret(Some("f"), None, &[("KEY", "hunter24")])).await.unwrap();
    daemon.kill().await;
    let damage = |generation: u32| {
        let connection = rusqlite::Connection::open(data.path().join("levain.db")).unwrap();
        let sql = "UPDATE secret_generations SET wrapped_key = CAST(wrapped_key || x'00' AS BLOB) WHERE generation = ?1 \
             AND variable_id = (SELECT id FROM variables WHERE key = 'KEY')";
        assert_eq!(connection.execute(sql, [generation]).unwrap(), 1);
    };
    damage(1);
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    // Two generations of KEY and one of OTHER.
    assert_eq!(client.call(&RotateMasterKeyRequest {}).await.unwrap().data_keys, 3);
    let generations = SecretGenerationsRequest { function_id: Some("f".into()), environment: None, key: "KEY".into() };
    let kept = client.call(&generations).await.unwrap().generations;
    assert_eq!(kept.iter().map(|it| it.generation).collect::<Vec<_>>(), [3, 2]);
    let audit = client.call(&SecretAuditRequest { function_id: Some("f".into()), limit: None }).await.unwrap().entries;
    let removed = audit.iter().find(|it| it.action == SecretAction::RotateMasterKey && it.generation == Some(1));
    assert_eq!(removed.and_then(|it| it.key.as_ref()).map(ToString::to_string).as_deref(), Some("KEY"), "{audit:?}");
    assert_eq!(invoke(&client, "f").await, hash("hunter24"));
    daemon.kill().await;

    // A damaged current generation stops the rotation; once the secret is set again, that generation is a former one.
    damage(3);
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    let outcome = client.call(&RotateMasterKeyRequest {}).await.map_err(refused);
    assert!(is_refused(&outcome, ErrorCode::SecretUnavailable), "{outcome:?}");
    assert!(!data.path().join("master.key.next").exists(), "the present key is where it was");
    client.call(&secret(Some("f"), None, &[("KEY", "hunter25")])).await.unwrap();
    assert_eq!(client.call(&RotateMasterKeyRequest {}).await.unwrap().data_keys, 3);
    until_answers_in_time(&client, &hash("hunter25")).await;
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_the_master_key_that_is_cut_off_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    prepared(data.path()).await;
    let steps = ROTATION_STEPS.iter().chain(&["store.before_commit", "store.committed"]);
    for step in steps {
        let before = fs::read(key_file(data.path())).unwrap();
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(CRASH_AT_VARIABLE, step);
        let daemon = DaemonProcess::spawn(command, data.path()).await;
        let client = daemon.client().await;
        // Under load: the daemon's end may cut off an invocation, but all earlier ones succeed.
        let (caller, request) =
            (daemon.client().await, InvokeRequest { function_id: "f".into(), ..InvokeRequest::default() });
        let (runs, is_running) = tokio::sync::oneshot::channel();
        let load = tokio::spawn(async move {
            let mut runs = Some(runs);
            while let Ok(answer) = caller.call(&request).await {
                assert_eq!(answer.body.0, hash("hunter22"));
                if let Some(runs) = runs.take() {
                    let _ = runs.send(());
                }
            }
        });
        until_answers(&client, "f", &hash("hunter22")).await;
        is_running.await.expect("the load gets an answer");
        let outcome = client.call(&RotateMasterKeyRequest {}).await;
        assert!(matches!(outcome, Err(ClientError::Disconnected)), "{step}: {outcome:?}");
        assert_eq!(daemon.ended().await.code(), None, "{step}");
        load.await.unwrap();

        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        assert_eq!(invoke(&client, "f").await, hash("hunter22"), "{step}");
        let is_new = matches!(*step, "secrets.committed" | "store.committed");
        assert_eq!(fs::read(key_file(data.path())).unwrap() != before, is_new, "{step}");
        assert!(!data.path().join("master.key.next").exists(), "{step}");
        // The next rotation starts from there.
        let rotated = client.call(&RotateMasterKeyRequest {}).await.unwrap();
        assert_eq!(rotated.data_keys, 2, "{step}");
        daemon.kill().await;
        let daemon = DaemonProcess::start(data.path()).await;
        assert_eq!(invoke(&daemon.client().await, "f").await, hash("hunter22"), "{step}");
        daemon.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_may_give_the_key() {
    let (data, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = credentials.path().join("master-key");
    let give = |key: &str| {
        fs::write(&file, key).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
    };
    let serve = async |variable: &str| {
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(variable, &file);
        DaemonProcess::spawn(command, data.path()).await
    };
    let daemon = serve("LEVAIN_SECRETS_MASTER_KEY_FILE").await;
    assert!(!daemon.stderr().contains("is now called"), "{}", daemon.stderr());
    let client = daemon.client().await;
    deploy(&client, "f", HASHER).await;
    let request = secret(Some("f"), None, &[("KEY", "hunter22")]);
    let outcome = client.call(&request).await.map_err(refused);
    assert!(is_refused(&outcome, ErrorCode::SecretUnavailable), "there is no file yet: {outcome:?}");
    give(&"0a".repeat(32));
    client.call(&request).await.unwrap();
    assert!(!key_file(data.path()).exists());
    let outcome = client.call(&RotateMasterKeyRequest {}).await.map_err(refused);
    assert!(is_refused(&outcome, ErrorCode::Conflict), "it is the same key: {outcome:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    give(&"0b".repeat(32));
    client.call(&RotateMasterKeyRequest {}).await.unwrap();
    assert_eq!(invoke(&client, "f").await, hash("hunter22"));
    daemon.kill().await;
    let daemon = serve("LEVAIN_MASTER_KEY_FILE").await;
    assert_eq!(invoke(&daemon.client().await, "f").await, hash("hunter22"));
    let notice = "LEVAIN_MASTER_KEY_FILE is now called LEVAIN_SECRETS_MASTER_KEY_FILE";
    assert!(daemon.stderr().contains(notice), "{}", daemon.stderr());
    daemon.kill().await;
}
