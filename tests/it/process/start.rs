//! Starts of the daemon, and the reasons for which it refuses to start.

use super::fails;
use crate::harness::DaemonProcess;
use levain::protocol::message::StatusRequest;
use nix::sys::signal::Signal;
use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Command,
};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_for_its_user_only() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = DaemonProcess::command(folder.path()).await;
    command.arg("serve").env("LEVAIN_SOCKET", folder.path().join("levain.sock"));
    let daemon = DaemonProcess::spawn(command, folder.path()).await;
    assert_eq!((mode(&data), mode(&daemon.socket())), (0o700, 0o600));
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_socket_is_replaced() {
    let data = tempfile::tempdir().unwrap();
    let socket = data.path().join("levain.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let daemon = DaemonProcess::start(data.path()).await;
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_daemon() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let pid = format!("process {}", daemon.pid());
    let path = data.path().to_str().unwrap();
    fails(
        DaemonProcess::serve(data.path()).await,
        4,
        &[path, "in use by another daemon", &pid, "levain stop", "--data-dir"],
    )
    .await;
    // Another socket does not help.
    let mut command = DaemonProcess::serve(data.path()).await;
    command.arg("--socket").arg(data.path().join("other.sock"));
    fails(command, 4, &["in use by another daemon"]).await;
    assert!(!data.path().join("other.sock").exists());
    assert_eq!(daemon.cli(&["status"]).await.code, Some(0), "the first daemon is not affected");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_has_one_daemon() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let daemon = DaemonProcess::start(first.path()).await;
    let mut command = DaemonProcess::serve(second.path()).await;
    command.arg("--socket").arg(daemon.socket());
    fails(command, 4, &[daemon.socket().to_str().unwrap(), "a daemon answers"]).await;
    assert_eq!(daemon.cli(&["status"]).await.code, Some(0), "the first daemon still has its socket");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_socket_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("levain.sock");
    fs::write(&path, "precious").unwrap();
    fails(DaemonProcess::serve(data.path()).await, 4, &[path.to_str().unwrap(), "is not a socket", "--socket"]).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_whose_name_alone_is_over_the_systems_limit_is_refused_with_that_reason() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.arg("--socket").arg(format!("/tmp/{}", "s".repeat(103)));
    fails(command, 4, &["name", "107 bytes", "--socket"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_deep_folder_the_default_data_directory_serves_builds_and_stops() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().canonicalize().unwrap().join("d".repeat(100)).join("with a space").join("e".repeat(100));
    fs::create_dir_all(folder.join("greeter/words")).unwrap();
    for (path, text) in [
        ("words/package.json", r#"{ "name": "words", "version": "1.0.0", "main": "index.js" }"#),
        ("words/index.js", "exports.greet = (name) => `Hello, ${name}!`;"),
        ("package.json", r#"{ "name": "greeter", "dependencies": { "words": "file:./words" } }"#),
        ("index.ts", r#"import { greet } from "words"; export default () => new Response(greet("world"));"#),
        (
            "bun.lock",
            r#"{ "lockfileVersion": 1, "workspaces": { "": { "name": "greeter", "dependencies":
                { "words": "file:./words" } } }, "packages": { "words": ["words@file:words", {}] } }"#,
        ),
    ] {
        fs::write(folder.join("greeter").join(path), text).unwrap();
    }
    let daemon = DaemonProcess::start_in(&folder).await;
    let socket = daemon.socket();
    assert!(socket.as_os_str().len() > 200, "the path is longer than a socket address allows");
    daemon.cli(&["deploy", "greeter", "greeter"]).await.ok();
    // The second build uses the packages that the first has left.
    daemon.cli(&["deploy", "again", "greeter"]).await.ok();
    for name in ["greeter", "again"] {
        assert_eq!(daemon.cli(&["invoke", name]).await.ok().trim_end(), "Hello, world!");
    }
    let printed = daemon.cli(&["config", "print"]).await.ok();
    assert!(printed.contains(&format!("data_dir = \"{}/data\"", folder.display())), "{printed}");
    let second = DaemonProcess::serve_in(&folder).await;
    fails(second, 4, &["in use by another daemon", &folder.join("data").display().to_string()]).await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(!socket.exists(), "the socket file is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_bun_it_says_how_to_get_it() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env_remove("LEVAIN_BUN").env("PATH", "");
    let hint = format!("levain runtime install --data-dir {}", data.path().display());
    fails(command, 7, &[&hint]).await;
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_BUN", "/no/such/bun");
    fails(command, 7, &["/no/such/bun"]).await;
    assert!(!data.path().join("levain.sock").exists(), "nothing is left of the attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let mut command = DaemonProcess::command(folder.path()).await;
        command.arg("serve").arg("--data-dir").arg(&path);
        fails(command, 1, &[path.to_str().unwrap(), "data directory", "--data-dir"]).await;
    }
}

/// A file system of its own, unmounted with the test, however the test ends.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Returns `None` where nothing can be mounted.
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs"]).arg(disk.0.path());
        mount.output().is_ok_and(|it| it.status.success()).then_some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_lower_the_isolation() {
    let Some(disk) = SmallDisk::mount() else { return eprintln!("skipped: nothing can be mounted here") };
    let daemon = DaemonProcess::start(disk.path()).await;
    let before = daemon.client().await.call(&StatusRequest {}).await.unwrap().sandbox.level;
    daemon.signal(Signal::SIGTERM);
    daemon.ended().await;
    let filled =
        fs::File::create(disk.path().join("filling")).and_then(|mut file| io::copy(&mut io::repeat(0), &mut file));
    assert_eq!(filled.map_err(|it| it.kind()).err(), Some(io::ErrorKind::StorageFull));
    match DaemonProcess::try_spawn(DaemonProcess::serve(disk.path()).await, disk.path()).await {
        Ok(daemon) => {
            let after = daemon.client().await.call(&StatusRequest {}).await.unwrap().sandbox.level;
            assert_eq!(after, before);
        }
        Err(refusal) => assert!(refusal.contains("No space left on device"), "{refusal}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_made_by_an_installation_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut install = DaemonProcess::command(folder.path()).await;
    install.args(["runtime", "install", "--data-dir"]).arg(&data).env("PATH", "/nowhere");
    let installed = DaemonProcess::output(install).await;
    assert_ne!(installed.code, Some(0), "without npm nothing is installed");
    assert_eq!(mode(&data), 0o700, "{}", installed.stderr);
}
