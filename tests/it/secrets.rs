//! Secrets: sealed, passed to workers, rotated, audited and masked; never stored or shown in clear.

mod apart;
mod keys;
mod masked;

use crate::{
    harness::{DaemonProcess, Load, TestDaemon, is_refused, until, workers_of},
    variables::set,
};
use levain::{
    client::Client,
    error::ErrorCode,
    model::SecretAction,
    protocol::{
        field::Body,
        message::{
            ChangeVariablesResponse, DeleteVariablesRequest, DeployRequest, InvokeRequest, ListVariablesRequest,
            RollbackRequest, RotateMasterKeyRequest, SecretAuditRequest, SecretGenerationsRequest, SetVariablesRequest,
            VariableInput, WarmupRequest,
        },
    },
};
use sha2::{Digest, Sha256};
use std::{fs, path::Path};

/// Answers with the beginning of the secret's hash, which proves its presence without revealing it.
const HASHER: &str = "import { createHash } from 'node:crypto';
    const hash = (it) => it === undefined ? 'none' : createHash('sha256').update(it).digest('hex').slice(0, 16);
    export default (req, ctx) => {
        const found = [process.env.KEY, Bun.env.KEY, ctx.env.KEY].map(hash);
        return new Response(found.every((it) => it === found[0]) ? found[0] : found.join());
    };";

fn hash(value: &str) -> String {
    Sha256::digest(value).iter().take(8).map(|it| format!("{it:02x}")).collect()
}

fn secret(function: Option<&str>, environment: Option<&str>, pairs: &[(&str, &str)]) -> SetVariablesRequest {
    SetVariablesRequest { is_secret: Some(true), ..set(function, environment, pairs) }
}

async fn deploy(client: &Client, name: &str, code: &str) {
    let bundle = Some(Body::from(code.as_bytes().to_vec()));
    let request = DeployRequest { function_id: name.into(), bundle, create: true, ..DeployRequest::default() };
    client.call(&request).await.unwrap();
}

async fn invoke(client: &Client, name: &str) -> String {
    let request = InvokeRequest { function_id: name.into(), ..InvokeRequest::default() };
    let answer = client.call(&request).await.unwrap();
    assert!(answer.success, "{answer:?}");
    String::from_utf8(answer.body.0.to_vec()).unwrap()
}

/// Every file below a folder that contains one of these texts; sockets are skipped.
fn files_with(folder: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(bytes) = fs::read(entry.path())
            {
                found.extend(holds(&bytes, texts).map(|text| format!("{}: {text}", entry.path().display())));
            }
        }
    }
    found
}

fn holds<'a>(bytes: &'a [u8], texts: &'a [&'a str]) -> impl Iterator<Item = &'a &'a str> {
    texts.iter().filter(|text| bytes.windows(text.len()).any(|it| it == text.as_bytes()))
}

/// Lists the places that contain these texts: the disk, the daemon's log, and what others can see of its processes.
fn traces(daemon: &DaemonProcess, data: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = files_with(data, texts);
    found.extend(holds(daemon.stderr().as_bytes(), texts).map(|text| format!("the daemon's log: {text}")));
    for pid in workers_of(data).into_iter().chain([daemon.pid()]) {
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            found.extend(holds(&bytes, texts).map(|text| format!("/proc/{pid}/{file}: {text}")));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_is_found_anywhere_while_the_function_reads_it() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_DAEMON_LOG_LEVEL", "trace");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let client = daemon.client().await;
    deploy(&client, "f", HASHER).await;
    let values = ["planted-first-3141592653", "planted-second-5358979323", "planted-third-8462643383"];
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|it| it.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("1"), "a crash writes nothing: {core}");
    // Control: the search finds a plain value, and does not find it once it is a secret.
    client.call(&set(Some("f"), None, &[("KEY", values[0])])).await.unwrap();
    assert!(!traces(&daemon, data.path(), &values).is_empty(), "the search finds a plain value");
    client.call(&secret(Some("f"), None, &[("KEY", values[0])])).await.unwrap();
    assert_eq!(invoke(&client, "f").await, hash(values[0]));
    assert_eq!(traces(&daemon, data.path(), &values), [] as [String; 0], "the plain value has been overwritten");

    // A secret stays a secret when only its value is set.
    let kept = client.call(&set(Some("f"), None, &[("KEY", values[1])])).await.unwrap();
    assert_eq!((kept.changed.len(), kept.workers.pending), (1, 0));
    assert_eq!(invoke(&client, "f").await, hash(values[1]));
    client.call(&RotateMasterKeyRequest {}).await.unwrap();
    let by_file = data.path().parent().unwrap().join(format!("{}.value", daemon.pid()));
    fs::write(&by_file, values[2]).unwrap();
    let shown = daemon.cli(&["secret", "rotate", "f", "KEY", "--from-file", by_file.to_str().unwrap()]).await.ok();
    fs::remove_file(&by_file).unwrap();
    assert_eq!(invoke(&client, "f").await, hash(values[2]));
    // Failing commands do not reveal it either.
    let refused = secret(Some("f"), None, &[("KEY", values[0]), ("LEVAIN_KEY", values[1])]);
    let mut said = vec![shown, format!("{:?}", client.call(&refused).await.unwrap_err())];
    let wrong_type = br#"{"function_id":"f","key":"KEY","value":["planted-first-3141592653"],"is_secret":true}"#;
    said.push(format!("{:?}", levain::protocol::ipc::Request::decode(0x23, wrong_type)));
    for arguments in [
        &["env", "list", "f"][..],
        &["--json", "env", "list", "f", "--resolved"],
        &["env", "export", "f"],
        &["--json", "env", "export", "f"],
        &["secret", "list", "f"],
        &["--json", "secret", "generations", "f", "KEY"],
        &["--json", "secret", "audit"],
        &["show", "f"],
        &["--json", "logs", "f"],
        &["--json", "status"],
        &["manifest", "export"],
    ] {
        let output = daemon.cli(arguments).await;
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        said.push(output.stdout + &output.stderr);
    }
    assert_eq!(holds(said.join("\n").as_bytes(), &values).next(), None, "{said:?}");
    assert_eq!(traces(&daemon, data.path(), &values), [] as [String; 0]);
    // A running worker has the secrets, but the system does not show them to others.
    assert_eq!(invoke(&client, "f").await, hash(values[2]));
    assert!(!workers_of(data.path()).is_empty());

    client
        .call(&DeleteVariablesRequest { function_id: Some("f".into()), keys: vec!["KEY".into()], ..delete_none() })
        .await
        .unwrap();
    assert_eq!(invoke(&client, "f").await, "none");
    daemon.kill().await;
    let daemon = DaemonProcess::start(data.path()).await;
    assert_eq!(traces(&daemon, data.path(), &values), [] as [String; 0]);
    daemon.kill().await;
}

fn delete_none() -> DeleteVariablesRequest {
    DeleteVariablesRequest::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_are_kept_restored_and_noted() {
    let daemon = TestDaemon::start_with(|config| config.secrets.generations_kept = 3).await;
    daemon.deploy_text("f", HASHER).await;
    for value in ["value one", "value two", "value three", "value four"] {
        daemon.call(&secret(Some("f"), Some("production"), &[("KEY", value)])).await.unwrap();
    }
    let generations = || SecretGenerationsRequest {
        function_id: Some("f".into()),
        environment: Some("production".into()),
        key: "KEY".into(),
    };
    let kept = daemon.call(&generations()).await.unwrap().generations;
    assert_eq!(
        kept.iter().map(|it| (it.generation, it.is_current)).collect::<Vec<_>>(),
        [(4, true), (3, false), (2, false)]
    );
    assert_eq!(daemon.invoke("f").await.unwrap().body.0, hash("value four"));
    let restore = |generation| {
        let input = VariableInput { key: "KEY".into(), from_generation: Some(generation), ..VariableInput::default() };
        SetVariablesRequest { variables: vec![input], ..set(Some("f"), Some("production"), &[]) }
    };
    assert!(is_refused(&daemon.call(&restore(1)).await, ErrorCode::VariableNotFound));
    daemon.call(&restore(2)).await.unwrap();
    assert_eq!(daemon.invoke("f").await.unwrap().body.0, hash("value two"));
    assert_eq!(daemon.call(&generations()).await.unwrap().generations[0].generation, 5);

    let reveal = ListVariablesRequest {
        function_id: Some("f".into()),
        resolved: true,
        reveal: true,
        ..ListVariablesRequest::default()
    };
    assert!(is_refused(&daemon.call(&reveal).await, ErrorCode::Forbidden));
    let plain = SetVariablesRequest { is_secret: Some(false), ..set(Some("f"), Some("production"), &[("KEY", "x")]) };
    assert!(is_refused(&daemon.call(&plain).await, ErrorCode::Conflict));
    daemon.call(&RotateMasterKeyRequest {}).await.unwrap();
    daemon
        .call(&DeleteVariablesRequest {
            function_id: Some("f".into()),
            environment: Some("production".into()),
            keys: vec!["KEY".into()],
            ..delete_none()
        })
        .await
        .unwrap();
    assert!(is_refused(&daemon.call(&generations()).await, ErrorCode::VariableNotFound));
    let entries = daemon.call(&SecretAuditRequest { function_id: None, limit: Some(1_000) }).await.unwrap().entries;
    let actions: Vec<_> =
        entries.iter().rev().filter(|it| it.action != SecretAction::Inject).map(|it| it.action).collect();
    use SecretAction::{Delete, RevealDenied, Rotate, RotateMasterKey, Set};
    assert_eq!(actions, [Set, Rotate, Rotate, Rotate, Rotate, RevealDenied, RotateMasterKey, Delete]);
    let injected: Vec<_> = entries.iter().filter(|it| it.action == SecretAction::Inject).collect();
    let with = |generation: u32| {
        let wanted = format!("version v1: KEY@{generation}");
        injected.iter().any(|it| it.detail.as_deref() == Some(&wanted) && it.function.as_deref() == Some("f"))
    };
    assert!(with(4) && with(5), "{injected:?}");
    let actor = format!("uid:{}", nix::unistd::Uid::effective());
    assert!(entries.iter().all(|it| it.actor == actor || it.actor == "daemon"), "{entries:?}");
    assert!(!serde_json::to_string(&entries).unwrap().contains("value "), "the audit trail contains no values");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_bounded_and_counts_what_repeats() {
    let daemon = TestDaemon::start_with(|config| config.secrets.audit_rows_max = 100).await;
    daemon.deploy_text("f", HASHER).await;
    for number in 0..60 {
        daemon
            .call(&secret(Some("f"), Some("dev"), &[(&format!("K{number}"), "some value"), ("L", "some value")]))
            .await
            .unwrap();
    }
    daemon.call(&secret(Some("f"), None, &[("KEY", "some value")])).await.unwrap();
    daemon.call(&WarmupRequest { function_id: "f".into(), count: 4, qualifier: None }).await.unwrap();
    let entries = daemon.call(&SecretAuditRequest { function_id: None, limit: Some(1_000) }).await.unwrap().entries;
    assert!(entries.len() <= 101, "{}", entries.len());
    let injected: Vec<_> = entries.iter().filter(|it| it.action == SecretAction::Inject).collect();
    assert!(injected.len() == 1 && injected[0].count >= 4, "{injected:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_no_revoked_value_back() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    daemon.call(&secret(Some("f"), None, &[("KEY", "the stolen one")])).await.unwrap();
    daemon.redeploy_text("f", Some("first"), HASHER).await.unwrap();
    assert_eq!(daemon.invoke("f").await.unwrap().body.0, hash("the stolen one"));
    daemon.redeploy_text("f", Some("second"), &format!("{HASHER}//")).await.unwrap();
    let rotated: ChangeVariablesResponse =
        daemon.call(&secret(Some("f"), None, &[("KEY", "the new one")])).await.unwrap();
    assert_eq!(rotated.workers.pending, 0);
    daemon.call(&RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() }).await.unwrap();
    for _ in 0..5 {
        let answer = daemon.invoke("f").await.unwrap();
        assert_eq!((answer.version.as_str(), &answer.body.0[..]), ("first", hash("the new one").as_bytes()));
    }
    daemon
        .call(&DeleteVariablesRequest { function_id: Some("f".into()), keys: vec!["KEY".into()], ..delete_none() })
        .await
        .unwrap();
    let request =
        RollbackRequest { function_id: "f".into(), version: Some("second".into()), ..RollbackRequest::default() };
    daemon.call(&request).await.unwrap();
    assert_eq!(daemon.invoke("f").await.unwrap().body.0, "none");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_fails_no_call() {
    let daemon = TestDaemon::start_with(|config| config.workers.prewarmed_workers = 1).await;
    daemon.deploy_text("f", HASHER).await;
    daemon.call(&secret(Some("f"), None, &[("KEY", "number 0")])).await.unwrap();
    let load = Load::start(&daemon, "f", "/", 2).await;
    load.until_answered(2).await;
    for number in 1..=10 {
        let value = format!("number {number}");
        let changed = daemon.call(&secret(Some("f"), None, &[("KEY", &value)])).await.unwrap();
        assert_eq!(changed.workers.pending, 0, "{changed:?}");
        daemon.call(&RotateMasterKeyRequest {}).await.unwrap();
        assert_eq!(daemon.invoke("f").await.unwrap().body.0, hash(&value));
    }
    let known: Vec<_> = (0..=10).map(|number| hash(&format!("number {number}"))).collect();
    for answer in load.stop().await {
        let body = std::str::from_utf8(&answer.body.0).unwrap().to_owned();
        assert!(known.contains(&body), "{body}");
    }
    daemon.stop().await;
}

/// Waits until the function gives this answer.
async fn until_answers(client: &Client, name: &str, expected: &str) {
    until(&format!("{name} answers {expected}"), || async { (invoke(client, name).await == expected).then_some(()) })
        .await;
}
