//! Manifests of deployments, one file each: `data/deployments/manifest-<deployment>.json`.
//!
//! Manifests serve people and their backups; the daemon itself does not depend on them. A file appears whole or not at
//! all. Their ids are in memory, so that no deployment lists the folder.

use crate::{model::DeploymentId, protocol::message::Manifest};
use parking_lot::Mutex;
use std::{collections::BTreeSet, fs, io, io::Write, os::unix::fs::DirBuilderExt, path::PathBuf};

/// The folder of manifests.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
    /// Deployments with a manifest. Ids sort by creation time.
    kept: Mutex<BTreeSet<DeploymentId>>,
}

impl Manifests {
    /// Opens the folder, which is created if necessary.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let names: io::Result<Vec<_>> = fs::read_dir(&folder)?.map(|it| it.map(|it| it.file_name())).collect();
        let kept = names?.iter().filter_map(|name| deployment(name.to_str()?)).collect();
        Ok(Self { folder, kept: Mutex::new(kept) })
    }

    fn path(&self, deployment: DeploymentId) -> PathBuf {
        self.folder.join(format!("manifest-{deployment}.json"))
    }

    /// Whether a deployment has a manifest.
    #[must_use]
    pub fn has(&self, deployment: DeploymentId) -> bool {
        self.path(deployment).exists()
    }

    /// Reads a deployment's manifest, if it exists.
    pub fn read(&self, deployment: DeploymentId) -> io::Result<Option<Manifest>> {
        match fs::read(self.path(deployment)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a deployment's manifest.
    pub fn write(&self, deployment: DeploymentId, manifest: &Manifest) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
        serde_json::to_writer_pretty(&mut file, manifest)?;
        file.write_all(b"\n")?;
        file.persist(self.path(deployment))?;
        self.kept.lock().insert(deployment);
        Ok(())
    }

    /// Removes the oldest manifests until at most `max` are left.
    pub fn prune(&self, max: usize) -> io::Result<()> {
        let mut kept = self.kept.lock();
        while kept.len() > max
            && let Some(oldest) = kept.pop_first()
        {
            match fs::remove_file(self.path(oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Deployment of the manifest with this file name.
fn deployment(name: &str) -> Option<DeploymentId> {
    name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn the_oldest_manifests_go_first_after_a_restart_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Manifests::open(folder.path().to_owned()).expect("opens");
        let empty = || Manifest { manifest: 1, created_at: Timestamp::now(), deployment: None, functions: Vec::new() };
        let ids: Vec<DeploymentId> = (0..5).map(|_| DeploymentId::new()).collect();
        fs::write(folder.path().join("notes.json"), "").expect("a file of the user");
        let first = open();
        ids[..3].iter().for_each(|id| first.write(*id, &empty()).expect("writes"));
        let second = open();
        ids[3..].iter().for_each(|id| second.write(*id, &empty()).expect("writes"));
        // A manifest that was removed by hand is no obstacle.
        fs::remove_file(second.path(ids[0])).expect("it is there");
        second.prune(2).expect("prunes");
        assert_eq!(ids.iter().map(|id| second.has(*id)).collect::<Vec<_>>(), [false, false, false, true, true]);
        assert!(folder.path().join("notes.json").exists());
        second.prune(0).expect("prunes");
        assert!(ids.iter().all(|id| !second.has(*id)));
    }
}
