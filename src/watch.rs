//! Notices that files should be read again: the configuration when it has changed or SIGHUP has come, others when
//! something has changed beside them.

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{signal::unix::Signal, sync::mpsc};

/// Editors write a file in several steps; reading waits until they have been quiet for this long.
const QUIET: Duration = Duration::from_millis(100);

/// So many notices one after the other are no reason to wait any longer.
const NOTICES_MAX: usize = 50;

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

/// Calls `reload` when anything changes in a folder that has one of these files. They may be links that lead elsewhere by
/// way of others, as tools leave them that renew certificates: which of them is replaced nobody can know. Runs until it is
/// dropped.
pub async fn folders(files: Vec<PathBuf>, reload: impl Fn()) {
    let (changed, mut changes) = mpsc::channel(1);
    let mut watchers = Vec::new();
    for file in files {
        match watch_folder(&file, changed.clone(), |_| true) {
            Ok(watcher) => watchers.push(watcher),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "a file is not watched; SIGHUP reads it again")
            }
        }
    }
    drop(changed);
    while changes.recv().await.is_some() {
        // Others may write beside them without end.
        for _ in 0..NOTICES_MAX {
            if tokio::time::timeout(QUIET, changes.recv()).await.is_err() {
                break;
            }
        }
        reload();
    }
}

/// Watches the folder, because editors replace a file by renaming another onto it.
fn watch(file: &Path, changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let file = std::path::absolute(file).map_err(notify::Error::io)?;
    watch_folder(&file.clone(), changed, move |event| event.paths.contains(&file))
}

fn watch_folder(
    file: &Path,
    changed: mpsc::Sender<()>,
    concerns: impl Fn(&notify::Event) -> bool + Send + 'static,
) -> notify::Result<RecommendedWatcher> {
    let file = std::path::absolute(file).map_err(notify::Error::io)?;
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let about_content = |kind: &EventKind| !matches!(kind, EventKind::Access(_));
        if event.is_ok_and(|event| about_content(&event.kind) && concerns(&event)) {
            // A full channel holds a notice already.
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
