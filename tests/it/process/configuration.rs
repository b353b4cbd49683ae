//! The configuration: errors are reported with their place, and changes are applied while the daemon runs.

use super::register;
use crate::harness::{DaemonProcess, Output, until};
use levain::protocol::message::GetRequest;
use nix::sys::signal::Signal;
use std::{cell::Cell, fs, path::Path};

/// Runs `serve` with this text as `config.toml` of its working directory.
async fn serve(text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), text).unwrap();
    DaemonProcess::output(DaemonProcess::serve(folder.path()).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_its_place() {
    let cases: [(&str, &[&str]); 6] = [
        ("[functions]\nqueue_mix = 1\n", &["config.toml:2", "queue_mix", "queue_max"]),
        ("\n[function]\nqueue_max = 1\n", &["config.toml:2", "function", "functions"]),
        ("[functions]\n\nqueue_max = 100001\n", &["config.toml:3", "functions.queue_max", "100001", "100000"]),
        ("[functions]\nqueue_max = \"many\"\n", &["config.toml:2", "functions.queue_max", "many", "whole number"]),
        ("[versioning]\nverify = \"never\"\n", &["config.toml:2", "versioning.verify", "never", "load"]),
        ("[functions\n", &["config.toml", "line 1"]),
    ];
    for (text, parts) in cases {
        let output = serve(text).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        for part in parts {
            assert!(output.stderr.contains(part), "`{part}` is missing: {}", output.stderr);
        }
    }
    // All errors are reported at once.
    let output = serve("[functions]\nqueue_max = -1\nmemory_mb = 1\n").await;
    assert!(output.stderr.contains("config.toml:2") && output.stderr.contains("config.toml:3"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_variable_or_flag_is_named() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_FUNCTIONS_QUEUE_MAX", "many");
    super::fails(command, 2, &["LEVAIN_FUNCTIONS_QUEUE_MAX", "functions.queue_max", "whole number"]).await;
    let mut command = DaemonProcess::serve(data.path()).await;
    command.arg("--log-level").arg("loud,,=");
    super::fails(command, 2, &["loud"]).await;
    let mut command = DaemonProcess::serve(data.path()).await;
    command.arg("--config").arg("missing.toml");
    super::fails(command, 2, &["missing.toml"]).await;
}

fn queue_max(value: &str) -> String {
    format!("[functions]\nqueue_max = {value}\n")
}

/// The default that a newly registered function gets.
async fn default_of_a_new_function(daemon: &DaemonProcess, count: &Cell<u32>) -> u32 {
    count.set(count.get() + 1);
    let name = format!("f{}", count.get());
    let client = daemon.client().await;
    register(&client, &name).await;
    client.call(&GetRequest { function_id: name }).await.unwrap().settings.queue_max
}

async fn until_default_is(daemon: &DaemonProcess, count: &Cell<u32>, value: u32) {
    until("the default has changed", || async move {
        (default_of_a_new_function(daemon, count).await == value).then_some(())
    })
    .await;
}

async fn start(folder: &Path, text: &str) -> DaemonProcess {
    fs::write(folder.join("config.toml"), text).unwrap();
    DaemonProcess::start(folder).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path(), &queue_max("11")).await;
    let count = &Cell::new(0);
    assert_eq!(default_of_a_new_function(&daemon, count).await, 11);
    let file = folder.path().join("config.toml");
    // Written in place.
    fs::write(&file, queue_max("12")).unwrap();
    until_default_is(&daemon, count, 12).await;
    // Replaced, as most editors do it; twice, because the file watched at first is gone then.
    for value in [13, 14] {
        let new = folder.path().join("config.toml.new");
        fs::write(&new, queue_max(&value.to_string())).unwrap();
        fs::rename(&new, &file).unwrap();
        until_default_is(&daemon, count, value).await;
    }
    // A broken file changes nothing.
    fs::write(&file, queue_max("-1")).unwrap();
    until("the refusal is logged", || async { daemon.stderr().contains("is not reloaded").then_some(()) }).await;
    assert!(daemon.stderr().contains("config.toml:2"), "{}", daemon.stderr());
    assert_eq!(default_of_a_new_function(&daemon, count).await, 14);
    fs::write(&file, queue_max("15")).unwrap();
    until_default_is(&daemon, count, 15).await;
    // A change that needs a restart is announced.
    fs::write(&file, format!("{}[daemon]\nsocket = \"other.sock\"\n", queue_max("15"))).unwrap();
    until("the need for a restart is logged", || async { daemon.stderr().contains("at the next start").then_some(()) })
        .await;
    assert!(daemon.stderr().contains("daemon.socket"), "{}", daemon.stderr());
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_file_again() {
    let [folder, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // A change behind a symbolic link is not noticed.
    let file = elsewhere.path().join("real.toml");
    fs::write(&file, queue_max("21")).unwrap();
    std::os::unix::fs::symlink(&file, folder.path().join("config.toml")).unwrap();
    let daemon = DaemonProcess::start(folder.path()).await;
    let count = &Cell::new(0);
    assert_eq!(default_of_a_new_function(&daemon, count).await, 21);
    fs::write(&file, queue_max("22")).unwrap();
    daemon.signal(Signal::SIGHUP);
    until_default_is(&daemon, count, 22).await;
    fs::write(&file, queue_max("-1")).unwrap();
    daemon.signal(Signal::SIGHUP);
    until("the refusal is logged", || async { daemon.stderr().contains("is not reloaded").then_some(()) }).await;
    assert_eq!(default_of_a_new_function(&daemon, count).await, 22);
    fs::write(&file, format!("{}[daemon]\nlog_level = \"error\"\n", queue_max("23"))).unwrap();
    daemon.signal(Signal::SIGHUP);
    until_default_is(&daemon, count, 23).await;
    let said = daemon.stderr().len();
    daemon.signal(Signal::SIGTERM);
    let stderr = daemon.stderr();
    assert!(!stderr[said..].contains("INFO"), "{stderr}");
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_file_survives_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(folder.path()).await;
    daemon.signal(Signal::SIGHUP);
    let count = &Cell::new(0);
    assert_eq!(default_of_a_new_function(&daemon, count).await, 128);
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_none_stops_the_start_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path(), &queue_max("31")).await;
    let (count, file) = (&Cell::new(0), folder.path().join("config.toml"));
    let refusals = |it: &DaemonProcess| it.stderr().matches("is not a regular file").count();
    // Reading either would never end.
    for (round, device) in ["/dev/zero", "pipe"].into_iter().enumerate() {
        let new = folder.path().join("config.toml.new");
        match device {
            "pipe" => nix::unistd::mkfifo(&new, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => std::os::unix::fs::symlink(device, &new).unwrap(),
        }
        fs::rename(&new, &file).unwrap();
        until("the refusal is logged", || async { (refusals(&daemon) > round).then_some(()) }).await;
        assert_eq!(default_of_a_new_function(&daemon, count).await, 31, "the old configuration stays");
        let other = tempfile::tempdir().unwrap();
        let mut command = DaemonProcess::serve(other.path()).await;
        command.arg("--config").arg(&file);
        super::fails(command, 2, &["config.toml", "is not a regular file"]).await;
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, queue_max("32")).unwrap();
    until_default_is(&daemon, count, 32).await;
    daemon.kill().await;
}
