//! Access to the command socket.

use crate::harness::TestDaemon;
use levain::config::Config;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    process::ExitStatus,
};
use tokio::process::Command;

/// Exit code of `curl` for a socket to which it cannot connect.
const CANNOT_CONNECT: i32 = 7;

/// User id that no daemon of the tests runs as.
const NOBODY: u32 = 65_534;

/// Starts a daemon with its socket in a folder that everybody may enter.
async fn reachable(change: impl FnOnce(&mut Config)) -> (TestDaemon, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = TestDaemon::start_with(|config| {
        config.daemon.socket = folder.path().join("s").to_str().unwrap().into();
        change(config);
    })
    .await;
    (daemon, folder)
}

fn mode(daemon: &TestDaemon) -> u32 {
    fs::metadata(daemon.socket()).unwrap().mode() & 0o777
}

/// Connects as another user, and returns the exit status; the daemon does not understand the HTTP that `curl` sends.
async fn connect_as_nobody(socket: PathBuf) -> ExitStatus {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "10", "--unix-socket"]).arg(socket).arg("http://localhost/");
    command.uid(NOBODY).gid(NOBODY).current_dir("/").status().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_for_the_daemons_user() {
    let (daemon, _folder) = reachable(|_| {}).await;
    assert_eq!(mode(&daemon), 0o600);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(connect_as_nobody(daemon.socket()).await.code(), Some(CANNOT_CONNECT));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_allowed_reaches_it() {
    for change in [(|config| config.daemon.allowed_uids = vec![NOBODY]) as fn(&mut Config), |config| {
        config.daemon.allowed_gids = vec![NOBODY]
    }] {
        let (daemon, _folder) = reachable(change).await;
        assert_eq!(mode(&daemon), 0o666, "regardless of the umask");
        if nix::unistd::geteuid().is_root() {
            let ended = connect_as_nobody(daemon.socket()).await;
            assert_ne!(ended.code(), Some(CANNOT_CONNECT), "{ended}");
        }
        daemon.stop().await;
    }
}
