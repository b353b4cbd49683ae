//! A worker's own folder, and the removal of folders that functions have filled.
//!
//! A function's left-overs are hostile: chains of folders thousands deep, millions of files, folders without
//! permissions. Removal neither recurses nor keeps folders open, and its failure never fails anything else.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
};
use uuid::Uuid;

/// Prefix of folders that wait for removal; they are siblings of the original folders.
const TRASH: &str = ".trash-";

/// A folder that is removed when the value is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // The folder holds only the socket unless the function wrote there, so this is mostly quick. It may be slow,
        // though, and must not hold up a thread that runs invocations.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&path))),
            Err(_) => remove(&path),
        }
    }
}

/// Makes an empty folder at `path`; the previous content is removed in the background.
pub(super) fn make_empty(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let old = parent.join(format!("{TRASH}{}", Uuid::now_v7()));
    match fs::rename(path, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => DirBuilder::new().recursive(true).mode(0o700).create(path)?,
    }
    let is_trash = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TRASH));
    let old: Vec<PathBuf> =
        fs::read_dir(parent)?.flatten().map(|entry| entry.path()).filter(|it| is_trash(it)).collect();
    if !old.is_empty() {
        thread::Builder::new().name("levain-clean".into()).spawn(move || old.iter().for_each(|path| remove(path)))?;
    }
    Ok(())
}

/// Removes a folder with everything in it, however hostile; logs a warning if something remains. Blocks.
pub fn remove(path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove the files that a worker left behind");
    }
}

/// Moves every folder found inside next to the outermost one, so that no path gets longer, however deep they go.
fn remove_tree(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                // A folder must be writable for its own `..` to be changed.
                fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
                let moved = parent.join(format!("{TRASH}{}", Uuid::now_v7()));
                fs::rename(entry.path(), &moved)?;
                folders.push(moved);
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_folders_of_any_depth_is_removed() {
        let data = tempfile::tempdir().expect("a folder");
        let worker = data.path().join("1");
        // Built inside out, because so long a path cannot be named.
        let mut inner = data.path().join("0");
        fs::create_dir(&inner).expect("a folder");
        for depth in 0..5_000 {
            let outer = data.path().join(format!("outer-{}", depth % 2));
            fs::create_dir(&outer).expect("a folder");
            fs::rename(&inner, outer.join("d")).expect("a move");
            inner = outer;
        }
        fs::rename(&inner, &worker).expect("a move");
        fs::write(worker.join("file"), "x").expect("a file");
        fs::create_dir(worker.join("locked")).expect("a folder");
        fs::set_permissions(worker.join("locked"), Permissions::from_mode(0o000)).expect("permissions");
        std::os::unix::fs::symlink("/", worker.join("link")).expect("a link");
        remove_tree(&worker).expect("all of it can go");
        assert_eq!(fs::read_dir(data.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_folder_is_emptied_without_waiting() {
        let data = tempfile::tempdir().expect("a folder");
        let run = data.path().join("run");
        fs::create_dir_all(run.join("7/deep")).expect("folders");
        make_empty(&run).expect("an empty folder");
        assert_eq!(fs::read_dir(&run).expect("a folder").count(), 0);
        assert_eq!(fs::metadata(&run).expect("a folder").permissions().mode() & 0o777, 0o700);
    }
}
