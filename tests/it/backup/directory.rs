//! Reports of a restore about its target directory: obstacles, disk errors, and which master key is needed.

use super::{node, restore, same, shown, stderr};
use crate::harness::DaemonProcess;
use levain::error::ErrorCode;
use levain::protocol::message::SetVariablesRequest;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn move_all(names: &[&str], from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    names.iter().for_each(|name| fs::rename(from.join(name), to.join(name)).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_node_is_in_the_way_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (file, before) = node(folder.path()).await;
    // The daemon was killed, so its last commits are in the log beside its database.
    let (data, aside) = (folder.path().join("data"), folder.path().join("aside"));
    let named = ["bundles", "deployments", "levain.db"];
    let beside = ["levain.db-wal", "levain.db-shm"];
    let refused = |output: &Output| assert_eq!(output.status.code(), Some(i32::from(ErrorCode::Conflict.exit_code())));
    let output = restore(&file, &data, None).await;
    refused(&output);
    for name in named.iter().chain(&beside) {
        assert!(stderr(&output).contains(name), "the message lists every obstacle: {}", stderr(&output));
    }
    move_all(&named, &data, &aside);
    let log = fs::read(data.join("levain.db-wal")).unwrap();
    let output = restore(&file, &data, None).await;
    refused(&output);
    assert!(stderr(&output).contains("levain.db-wal"), "{}", stderr(&output));
    assert!(
        !data.join("levain.db").exists() && !data.join(".restoring").exists(),
        "the refused restore writes nothing"
    );
    assert_eq!(fs::read(data.join("levain.db-wal")).unwrap(), log);
    move_all(&beside, &data, &aside);
    let output = restore(&file, &data, None).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let daemon = DaemonProcess::start(&data).await;
    same(&shown(&daemon).await, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_belongs_to_a_node_is_in_the_way_and_all_else_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = node(folder.path()).await;
    for (number, (name, is_in_the_way)) in [
        ("levain.db-wal", true),
        ("levain.db-shm", true),
        ("levain.db-journal", true),
        ("master.key.next", true),
        ("master.key", false),
        ("admin.token", false),
        ("logs.db", false),
    ]
    .into_iter()
    .enumerate()
    {
        let data = folder.path().join(number.to_string());
        fs::create_dir(&data).unwrap();
        fs::write(data.join(name), "old").unwrap();
        let restored = levain::daemon::restore(fs::File::open(&file).unwrap(), &data);
        match is_in_the_way {
            true => assert!(restored.expect_err(name).to_string().contains(name)),
            false => drop(restored.expect(name)),
        }
        assert_eq!(data.join("levain.db").exists(), !is_in_the_way, "{name}");
        assert_eq!(fs::read_to_string(data.join(name)).unwrap(), "old", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_not_the_fault_of_the_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = node(folder.path()).await;
    let data = folder.path().join("small");
    // A file may have at most 16 blocks of 512 bytes; a longer write fails with an error instead of a signal.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_levain"), "restore"]);
    command.arg(&file).arg("--data-dir").arg(&data);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(i32::from(ErrorCode::Internal.exit_code())), "{output:?}");
    assert!(stderr(&output).contains("cannot write"), "{output:?}");
    assert!(!data.exists());
    let mut damaged = fs::read(&file).unwrap();
    damaged.truncate(damaged.len() / 2);
    fs::write(folder.path().join("damaged"), damaged).unwrap();
    let output = restore(&folder.path().join("damaged"), &data, None).await;
    assert_eq!(output.status.code(), Some(i32::from(ErrorCode::InvalidRequest.exit_code())), "{output:?}");
}

/// Backs up the node into a file with this name.
async fn backup(daemon: &DaemonProcess, name: &str) -> PathBuf {
    let file = daemon.data_dir().parent().unwrap().join(name);
    daemon.cli(&["backup", file.to_str().unwrap()]).await.ok();
    file
}

/// Returns the output of `levain restore --json`.
async fn restored(file: &Path, data: &Path) -> serde_json::Value {
    let mut command = DaemonProcess::command(file.parent().unwrap()).await;
    command.args(["--json", "restore", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]);
    DaemonProcess::output(command).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_that_a_backup_needs_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let daemon = DaemonProcess::start(&data).await;
    let plain = backup(&daemon, "plain").await;
    let secret = SetVariablesRequest {
        key: Some("API_KEY".into()),
        value: Some("hunter22".into()),
        is_secret: Some(true),
        ..SetVariablesRequest::default()
    };
    daemon.client().await.call(&secret).await.unwrap();
    let before = backup(&daemon, "before").await;
    let old = fs::read(data.join("master.key")).unwrap();
    let rotated = daemon.cli(&["--json", "secret", "rotate-master-key"]).await.json();
    let after = backup(&daemon, "after").await;
    daemon.kill().await;

    let said = restored(&after, &folder.path().join("a")).await;
    assert_eq!((&said["key_id"], &said["key_is_there"]), (&rotated["key_id"], &false.into()));
    let said = restored(&plain, &folder.path().join("b")).await;
    assert_eq!((&said["key_id"], &said["key_is_there"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    // The key in the target directory is newer than that of the backup.
    let target = folder.path().join("c");
    fs::create_dir(&target).unwrap();
    fs::copy(data.join("master.key"), target.join("master.key")).unwrap();
    let output = restore(&before, &target, None).await;
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("need the master key") && said.contains(rotated["key_id"].as_str().unwrap()), "{said}");
    let started = DaemonProcess::try_spawn(DaemonProcess::serve(&target).await, &target).await;
    assert!(started.is_err(), "a daemon starts with the wrong key");
    fs::write(target.join("master.key"), old).unwrap();
    drop(DaemonProcess::start(&target).await);
    // With the right key in place, a restore needs no further step.
    let target = folder.path().join("d");
    fs::create_dir(&target).unwrap();
    fs::copy(data.join("master.key"), target.join("master.key")).unwrap();
    assert_eq!(restored(&after, &target).await["key_is_there"], true);
}
