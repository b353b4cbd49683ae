//! A daemon that is killed at any step of a change leaves the old state or the new one.

use super::{deploy, invoke, register};
use crate::{archives::build, harness::DaemonProcess};
use levain::{
    client::{Client, ClientError},
    crash_point::{CRASH_AT_VARIABLE, STEPS},
    protocol::{
        field::Body,
        message::{CleanupRequest, DeleteVersionRequest, DeployRequest, GetRequest, VersionInfo, VersionsRequest},
    },
};
use std::{fs, os::unix::process::ExitStatusExt, path::Path};

/// Code that answers with its label and the version given by the daemon.
pub fn code(label: &str) -> String {
    format!("export default (req, ctx) => new Response('{label} ' + ctx.version);")
}

pub async fn versions(client: &Client, name: &str) -> Vec<VersionInfo> {
    client.call(&VersionsRequest { function_id: name.into(), ..VersionsRequest::default() }).await.unwrap().versions
}

/// Checks that a listed version runs the code it was deployed with.
pub async fn is_whole(client: &Client, name: &str, label: &str) {
    let answer = invoke(client, &format!("{name}:{label}")).await.unwrap();
    let body = String::from_utf8_lossy(&answer.body.0);
    assert_eq!((body.as_ref(), answer.version.as_str()), (format!("{label} {label}").as_str(), label), "{answer:?}");
}

/// Checks that the bundle folder holds exactly the bundles of these versions.
pub fn bundles_are(data_dir: &Path, labels: &[&str]) {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    };
    let root = data_dir.join("bundles");
    let functions = names(&root);
    assert!(functions.len() == 1 && functions[0].starts_with("func-"), "{functions:?}");
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    assert_eq!(names(&root.join(&functions[0])), labels);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_leaves_the_old_state_or_the_new_one() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    register(&client, "f").await;
    let mut labels = Vec::new();
    for label in ["first", "second"] {
        deploy(&client, "f", label, &code(label)).await.unwrap();
        labels.push(label.to_owned());
    }
    daemon.kill().await;
    for step in STEPS {
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(CRASH_AT_VARIABLE, step);
        let daemon = DaemonProcess::spawn(command, data.path()).await;
        let client = daemon.client().await;
        let live = labels.last().unwrap().clone();
        let new = format!("at-{}", step.replace('.', "-"));
        let outcome = match *step {
            "bundle.trashed" => {
                let request = DeleteVersionRequest { function_id: "f".into(), version: labels.remove(0).into() };
                client.call(&request).await.map(|_| ())
            }
            "archive.unpacked" => {
                let archive = Some(Body::from(build::tar_of(&[build::file(b"bundle.js", code(&new).as_bytes())])));
                let version = Some(new.clone());
                let request = DeployRequest { function_id: "f".into(), version, archive, ..DeployRequest::default() };
                client.call(&request).await.map(|_| ())
            }
            _ => deploy(&client, "f", &new, &code(&new)).await.map(|_| ()),
        };
        assert!(matches!(outcome, Err(ClientError::Disconnected)), "{step}: {outcome:?}");
        assert_eq!(daemon.ended().await.signal(), Some(9), "{step}");
        let incoming = || fs::read_dir(data.path().join("incoming")).unwrap().count();
        assert_eq!(incoming(), usize::from(*step == "archive.unpacked"), "{step}");

        let daemon = DaemonProcess::start(data.path()).await;
        assert_eq!(incoming(), 0, "{step}");
        let client = daemon.client().await;
        // The transaction decides: before it the old state holds, after it the new one.
        let is_new = *step == "store.committed";
        if is_new {
            labels.push(new.clone());
        }
        let found: Vec<_> = versions(&client, "f").await.into_iter().rev().map(|it| it.version.to_string()).collect();
        assert_eq!(found, labels, "{step}");
        let function = client.call(&GetRequest { function_id: "f".into() }).await.unwrap();
        let live = if is_new { &new } else { &live };
        assert_eq!(function.active_version.as_ref(), Some(live), "{step}");
        assert_eq!(invoke(&client, "f").await.unwrap().body.0, format!("{live} {live}"), "{step}");
        for label in &labels {
            is_whole(&client, "f", label).await;
        }
        bundles_are(data.path(), &labels.iter().map(String::as_str).collect::<Vec<_>>());
        // A repeated deployment finds no obstacle.
        let again = deploy(&client, "f", &new, &code(&new)).await.unwrap();
        assert_eq!((again.version.as_str(), again.status.name()), (new.as_str(), "deployed"), "{step}");
        is_whole(&client, "f", &new).await;
        if !is_new {
            labels.push(new);
        }
        // Keeps the number of versions small.
        while labels.len() > 3 {
            let request = DeleteVersionRequest { function_id: "f".into(), version: labels.remove(0).into() };
            client.call(&request).await.unwrap();
        }
        daemon.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_cleanup_leaves_on_the_disk_goes_at_the_next_start() {
    for (step, is_done) in [("store.before_commit", false), ("store.committed", true), ("bundle.trashed", true)] {
        let data = tempfile::tempdir().unwrap();
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        register(&client, "f").await;
        let labels = ["one", "two", "three", "four", "five"];
        for label in labels {
            deploy(&client, "f", label, &code(label)).await.unwrap();
        }
        daemon.kill().await;
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(CRASH_AT_VARIABLE, step);
        let daemon = DaemonProcess::spawn(command, data.path()).await;
        let request = CleanupRequest { function_id: None, keep: Some(1), dry_run: false };
        let outcome = daemon.client().await.call(&request).await;
        assert!(matches!(outcome, Err(ClientError::Disconnected)), "{step}: {outcome:?}");
        assert_eq!(daemon.ended().await.signal(), Some(9), "{step}");
        assert!(fs::read_dir(data.path().join("bundles")).unwrap().count() > 0);

        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        let left = if is_done { &labels[3..] } else { &labels[..] };
        let found: Vec<_> = versions(&client, "f").await.into_iter().rev().map(|it| it.version).collect();
        assert_eq!(found, left, "{step}");
        bundles_are(data.path(), left);
        for label in left {
            is_whole(&client, "f", label).await;
        }
        // A repeated cleanup finishes the work.
        let response = client.call(&request).await.unwrap();
        assert_eq!(response.functions[0].removed.len(), left.len() - 2, "{step}");
        bundles_are(data.path(), &labels[3..]);
        daemon.kill().await;
    }
}
