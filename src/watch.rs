//! Notices that the configuration should be read again: its file has changed, or SIGHUP has come.

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{signal::unix::Signal, sync::mpsc};

/// Editors write a file in several steps; reading waits until they have been quiet for this long.
const QUIET: Duration = Duration::from_millis(100);

/// Calls `reload` when `file` changes and at each `hangup`. Runs until it is dropped.
pub async fn config(file: Option<PathBuf>, mut hangup: Signal, reload: impl Fn()) {
    // One place is enough: a notice that waits covers all that come before it is taken.
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = file.and_then(|file| match watch(&file, changed) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the configuration file is not watched; SIGHUP reloads it");
            None
        }
    });
    loop {
        tokio::select! {
            Some(()) = hangup.recv() => {}
            Some(()) = changes.recv() => {
                while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|it| it.is_some()) {}
            }
            else => return,
        }
        reload();
    }
}

/// Watches the folder, because editors replace a file by renaming another onto it.
fn watch(file: &Path, changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let file = std::path::absolute(file).map_err(notify::Error::io)?;
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let about_content = |kind: &EventKind| !matches!(kind, EventKind::Access(_));
        if event.is_ok_and(|event| about_content(&event.kind) && event.paths.contains(&file)) {
            // A full channel holds a notice already.
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
