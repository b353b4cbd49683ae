//! Writes a backup of a running node.

use super::{ABOUT, About, BUNDLES, DATABASE, FORMAT, MANIFESTS};
use crate::{
    bundle::{BundleError, BundleStore},
    model::Timestamp,
    store::{Store, StoreError},
};
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};
use tempfile::TempDir;

/// A prepared backup, which is not written yet.
#[derive(Debug)]
pub struct Prepared {
    folder: TempDir,
    about: About,
}

/// Reason why a backup cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The database cannot be copied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bundle cannot be linked.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Captures one instant: a copy of the database, and links to every bundle that it refers to, in an empty folder on the
/// same file system. Deletions of bundles wait meanwhile. Blocks on the disk.
pub fn prepare(store: &Store, bundles: &BundleStore, manifests: &Path, folder: TempDir) -> Result<Prepared, TakeError> {
    let created_at = Timestamp::now();
    let copy = folder.path().join(DATABASE);
    let (functions, published) = {
        let _kept = bundles.keep();
        store.copy_to(&copy)?;
        let snapshot = Store::open(&copy)?;
        let published = snapshot.published()?;
        for (&function, labels) in &published {
            for label in labels {
                let target = folder.path().join(BUNDLES).join(function.to_string()).join(label.as_str());
                bundles.link(function, label, &target)?;
            }
        }
        (snapshot.functions()?.len(), published)
    };
    link_manifests(manifests, &folder.path().join(MANIFESTS))?;
    let about = About {
        format: FORMAT,
        levain: env!("CARGO_PKG_VERSION").into(),
        created_at,
        functions: functions as u32,
        versions: published.values().map(|labels| labels.len() as u32).sum(),
    };
    Ok(Prepared { folder, about })
}

/// Links the manifests. A manifest that is deleted meanwhile is left out, because a node works without it.
fn link_manifests(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        // A hidden name is a manifest that is still being written.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match fs::hard_link(from.join(&name), to.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            linked => linked?,
        }
    }
    Ok(())
}

impl Prepared {
    /// Returns the description of the backup.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Writes the file to `output`. Blocks on the disk and on `output`.
    pub fn write<W: Write>(&self, output: W) -> io::Result<W> {
        let mut archive = tar::Builder::new(GzEncoder::new(output, Compression::fast()));
        let about = serde_json::to_vec_pretty(&self.about)?;
        let mut header = header(about.len() as u64, self.about.created_at.as_millis() as u64 / 1_000);
        archive.append_data(&mut header, ABOUT, about.as_slice())?;
        let mut paths = files(self.folder.path(), Path::new(""))?;
        paths.sort();
        for path in paths {
            let mut file = File::open(self.folder.path().join(&path))?;
            let metadata = file.metadata()?;
            let changed = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
            archive.append_data(&mut self::header(metadata.len(), changed), &path, &mut file)?;
        }
        archive.into_inner()?.finish()
    }
}

fn header(size: u64, changed: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(changed);
    header
}

/// Returns the paths of all files below `root/prefix`, relative to `root`.
fn files(root: &Path, prefix: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root.join(prefix))? {
        let entry = entry?;
        let path = prefix.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => paths.extend(files(root, &path)?),
            false => paths.push(path),
        }
    }
    Ok(paths)
}
