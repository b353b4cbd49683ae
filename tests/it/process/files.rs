//! Damaged or missing files of the data directory, at the start and under a running daemon.

use super::{deploy, fails, register};
use crate::harness::{DaemonProcess, until};
use levain::client::Client;
use nix::sys::signal::Signal;
use std::{
    fs::{self, OpenOptions},
    os::unix::{
        fs::{FileExt, PermissionsExt},
        net::UnixListener,
    },
    path::Path,
};

const SPEAKS: &str = "export default () => { console.log('spoken'); return new Response('answer'); };";

async fn says(daemon: &DaemonProcess, what: &str) {
    until(what, || async { daemon.stderr().contains(what).then_some(()) }).await;
}

async fn deploy_hello(daemon: &DaemonProcess) {
    let client = daemon.client().await;
    register(&client, "hello").await;
    deploy(&client, "hello", "v1", SPEAKS).await.unwrap();
}

/// Invokes the function until one of its lines is in the log: a damaged log accepts lines until a read finds the
/// damage.
async fn speaks(daemon: &DaemonProcess) {
    until("its line is read", || async {
        assert_eq!(daemon.cli(&["invoke", "hello"]).await.ok().trim(), "answer");
        daemon.cli(&["logs", "hello"]).await.stdout.contains("spoken").then_some(())
    })
    .await;
}

fn damaged(data: &Path) -> usize {
    let names = fs::read_dir(data).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|it| it.starts_with("logs.db.damaged-") && it.ends_with('Z')).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_stops_neither_the_start_nor_a_function() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    deploy_hello(&daemon).await;
    speaks(&daemon).await;
    daemon.kill().await;
    let log = data.path().join("logs.db");
    for leftover in ["logs.db-wal", "logs.db-shm"] {
        let _ = fs::remove_file(data.path().join(leftover));
    }
    fs::write(&log, "what a bad disk leaves ".repeat(1_000)).unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    assert!(daemon.stderr().contains("logs.db.damaged-"), "{}", daemon.stderr());
    assert_eq!(damaged(data.path()), 1);
    speaks(&daemon).await;

    // Every statement reads the first page; contents of the write-ahead log would hide it.
    let other = rusqlite::Connection::open(&log).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let length = fs::metadata(&log).unwrap().len() as usize;
    OpenOptions::new().write(true).open(&log).unwrap().write_all_at(&vec![0xa5; length], 0).unwrap();
    drop(other);
    speaks(&daemon).await;
    assert_eq!(damaged(data.path()), 2, "{}", daemon.stderr());
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_removed_is_made_anew() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    deploy_hello(&daemon).await;
    speaks(&daemon).await;
    for name in ["logs.db", "logs.db-wal", "logs.db-shm"] {
        fs::remove_file(data.path().join(name)).unwrap();
    }
    assert_eq!(daemon.cli(&["invoke", "hello"]).await.ok().trim(), "answer");
    says(&daemon, "the log database was removed").await;
    speaks(&daemon).await;
    daemon.kill().await;
    let daemon = DaemonProcess::start(data.path()).await;
    assert!(daemon.cli(&["logs", "hello"]).await.ok().contains("spoken"), "it is on disk");
    assert_eq!(damaged(data.path()), 0);
    daemon.kill().await;
}

/// The mark spares the next start the check of the whole database, so no crash may leave one.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_marks_the_database_as_whole_and_a_crash_does_not() {
    let data = tempfile::tempdir().unwrap();
    let mark = data.path().join("levain.db-closed");
    let daemon = DaemonProcess::start(data.path()).await;
    deploy_hello(&daemon).await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(mark.exists());
    let daemon = DaemonProcess::start(data.path()).await;
    assert!(!mark.exists(), "it is gone before the first write");
    daemon.kill().await;
    assert!(!mark.exists());
    let daemon = DaemonProcess::start(data.path()).await;
    assert!(daemon.cli(&["list"]).await.ok().contains("hello"));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_empty_node_begins_beside_the_code_of_another() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    deploy_hello(&daemon).await;
    // A daemon that stops leaves its whole database in the one file.
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let at = |name: &str| data.path().join(name);
    fs::rename(at("levain.db"), at("kept.db")).unwrap();
    let named = [at("levain.db").to_str().unwrap().to_owned(), "bundles".into(), "restore".into(), "empty node".into()];
    let named: Vec<_> = named.iter().map(String::as_str).collect();
    fails(DaemonProcess::serve(data.path()).await, 4, &named).await;
    assert!(!at("levain.db").exists(), "no database is created");
    // An empty database file counts as a missing one.
    fs::write(at("levain.db"), "").unwrap();
    fails(DaemonProcess::serve(data.path()).await, 4, &named).await;
    // There are two ways out: put the database back, or move the rest away.
    fs::rename(at("kept.db"), at("levain.db")).unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    assert_eq!(daemon.cli(&["invoke", "hello"]).await.ok().trim(), "answer");
    daemon.kill().await;
    for name in ["levain.db", "levain.db-wal", "levain.db-shm"] {
        let _ = fs::remove_file(at(name));
    }
    for name in ["bundles", "deployments"] {
        let _ = fs::rename(at(name), at(&format!("{name}.old")));
    }
    let daemon = DaemonProcess::start(data.path()).await;
    assert_eq!(daemon.cli(&["invoke", "hello"]).await.code, Some(3), "it is an empty node");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_lock_file_lets_no_second_daemon_in() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let lock = data.path().join("levain.lock");
    fs::remove_file(&lock).unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.arg("--socket").arg(data.path().join("other.sock"));
    fails(command, 4, &["in use by another daemon", "--data-dir"]).await;
    until("it is made anew", || async { (fs::read_to_string(&lock).ok()? == daemon.pid().to_string()).then_some(()) })
        .await;
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
    // The lock file names the daemon again, and suffices to lock out another one.
    let file = nix::fcntl::Flock::lock(fs::File::open(&lock).unwrap(), nix::fcntl::FlockArg::LockExclusiveNonblock);
    assert!(file.is_err());
    let mut command = DaemonProcess::serve(data.path()).await;
    command.arg("--socket").arg(data.path().join("other.sock"));
    fails(command, 4, &[&format!("process {}", daemon.pid())]).await;
    says(&daemon, "the lock file was removed").await;
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_socket_file_is_bound_again() {
    let data = tempfile::tempdir().unwrap();
    let mut daemon = DaemonProcess::start(data.path()).await;
    let before = daemon.client().await;
    for round in 0..2 {
        fs::remove_file(daemon.socket()).unwrap();
        until("it is bound again", || async { Client::connect(daemon.socket()).await.ok() }).await;
        assert_eq!(fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777, 0o600, "round {round}");
        assert_eq!(daemon.cli(&["status"]).await.code, Some(0));
    }
    before.call(&levain::protocol::message::StatusRequest {}).await.unwrap();
    daemon.signal(Signal::SIGTERM);
    let socket = daemon.socket();
    daemon = {
        assert_eq!(daemon.ended().await.code(), Some(0));
        assert!(!socket.exists(), "the latest socket file is removed");
        DaemonProcess::start(data.path()).await
    };
    // Another program's socket file is left alone, even when the daemon stops.
    fs::remove_file(&socket).unwrap();
    let _other = UnixListener::bind(&socket).unwrap();
    says(&daemon, "new clients cannot connect").await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(socket.exists());
}
