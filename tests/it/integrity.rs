//! Bundles that change on disk while the daemon runs: workers do not start with them.

use crate::harness::{TestDaemon, text, until};
use levain::{
    error::{Error, ErrorCode},
    model::SettingsPatch,
};
use std::{
    fs::{self, FileTimes, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::SystemTime,
};

const CODE: &str = "export default () => new Response('published');";
const OTHER: &str = "export default () => new Response('tampered!');";

/// Starts a daemon with a function whose workers end when idle, and returns the writable folder of its bundle.
async fn start() -> (TestDaemon, std::path::PathBuf) {
    let daemon = TestDaemon::start().await;
    let settings = SettingsPatch { idle_timeout_seconds: Some(1), ..SettingsPatch::default() };
    daemon.register_with("f", settings).await;
    let deployed = daemon.redeploy_text("f", None, CODE).await.expect("the bundle is good");
    let folder = daemon.bundle_folder(deployed.function_id, &deployed.version);
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.join("bundle.js"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "published");
    (daemon, folder)
}

/// Error of an invocation that needs a new worker.
async fn refused(daemon: &TestDaemon) -> Error {
    daemon.until_no_workers().await;
    daemon.invoke("f").await.expect_err("no worker starts with the changed bundle")
}

async fn until_served(daemon: &TestDaemon) {
    until("the restored bundle is served", || async {
        let answer = daemon.invoke("f").await.ok()?;
        assert_eq!(text(&answer), "published");
        Some(())
    })
    .await;
}

fn is_named(error: &Error, folder: &Path, file: &str) {
    assert_eq!(error.code, ErrorCode::BundleInvalid, "{error:?}");
    for part in [folder.to_str().unwrap(), file, "changed after it was published", "restore it from a backup"] {
        assert!(error.message.contains(part), "{part}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_starts_with_a_bundle_that_was_changed_while_the_daemon_runs() {
    let (daemon, folder) = start().await;
    let file = folder.join("bundle.js");
    // Changed in place, with the same length.
    assert_eq!(CODE.len(), OTHER.len());
    fs::write(&file, OTHER).unwrap();
    is_named(&refused(&daemon).await, &folder, "bundle.js");
    // Once restored, the bundle is checked again and served.
    fs::write(&file, CODE).unwrap();
    until_served(&daemon).await;
    // Replaced by another file with the same modification time.
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(folder.join("new"), OTHER).unwrap();
    fs::rename(folder.join("new"), &file).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_times(FileTimes::new().set_modified(modified)).unwrap();
    is_named(&refused(&daemon).await, &folder, "bundle.js");
    fs::write(&file, CODE).unwrap();
    until_served(&daemon).await;
    // An additional file.
    fs::write(folder.join("more.js"), "").unwrap();
    is_named(&refused(&daemon).await, &folder, "more.js");
    fs::remove_file(folder.join("more.js")).unwrap();
    until_served(&daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_only_looks_different_is_served() {
    let (daemon, folder) = start().await;
    let file = fs::File::options().write(true).open(folder.join("bundle.js")).unwrap();
    file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    daemon.until_no_workers().await;
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "published");
    daemon.stop().await;
}
