//! Manifests of deployments, one file each: `data/deployments/manifest-<deployment>.json`.
//!
//! Manifests serve people and their backups; the daemon itself does not depend on them. A file appears whole or not at
//! all.

use crate::{model::DeploymentId, protocol::message::Manifest};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The folder of manifests.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// Opens the folder, which is created if necessary.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
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
        Ok(())
    }

    /// Removes the oldest manifests until at most `max` are left.
    pub fn prune(&self, max: usize) -> io::Result<()> {
        let files: io::Result<Vec<PathBuf>> = fs::read_dir(&self.folder)?.map(|it| it.map(|it| it.path())).collect();
        let mut files = files?;
        files.retain(|path| is_manifest(path));
        // Ids sort by creation time.
        files.sort();
        let excess = files.len().saturating_sub(max);
        files[..excess].iter().try_for_each(fs::remove_file)
    }
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
    name.starts_with("manifest-") && name.ends_with(".json")
}
