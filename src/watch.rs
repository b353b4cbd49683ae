//! Watching of files: the configuration is read again when it changes or SIGHUP arrives, other files when anything in
//! their folder changes.

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{signal::unix::Signal, sync::mpsc};

/// Quiet time to wait for before a file is read, because editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// Number of consecutive notices after which reading waits no longer.
const NOTICES_MAX: usize = 50;

/// Calls `reload` when `file` changes and at each `hangup`. Runs until it is dropped.
pub async fn config(file: Option<PathBuf>, mut hangup: Signal, reload: impl Fn()) {
    // Capacity 1 is enough: a waiting notice covers all that arrive before it is taken.
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

/// Calls `reload` when anything changes in a folder that contains one of these files, and once at the beginning: they
/// may have changed since they were read. The files may be symbolic links that lead through others, as tools that renew
/// certificates leave them, so the entry that is replaced cannot be known. Runs until it is dropped.
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
    if !watchers.is_empty() {
        reload();
    }
    while changes.recv().await.is_some() {
        // Other programs may write to the same folder without end.
        for _ in 0..NOTICES_MAX {
            if tokio::time::timeout(QUIET, changes.recv()).await.is_err() {
                break;
            }
        }
        reload();
    }
}

/// Watches the file's folder, because editors replace a file by renaming another onto it.
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
            // A full channel already holds a notice.
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_before_the_watch_began_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (read, mut reads) = mpsc::unbounded_channel();
        let watching = folders(vec![folder.path().join("chain.pem")], move || {
            let _ = read.send(());
        });
        let again = async {
            tokio::select! {
                () = watching => None,
                again = reads.recv() => again,
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), again).await, Ok(Some(())));
    }
}
