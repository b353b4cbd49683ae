//! The runtime of workers: a recent enough Bun, and the shim.
//!
//! [`find`] looks for Bun and [`install()`] installs it; [`BunRuntime::new`] puts the shim, which is part of this binary,
//! on disk. `worker-shim/package.json` names the version to install and the oldest usable one.
//!
//! Invariant: everything in the data directory's `runtime` folder under its final name is complete.

mod bun;
mod command;
mod install;
mod shim;

pub use bun::{BunVersion, FoundBun, Origin, Unusable, find, minimum_version, pinned_version};
pub use command::CommandError;
pub use install::install;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Shim file that a worker runs.
const ENTRY: &str = "entry.js";

/// Shim file that stands in for a function in a rehearsal.
pub const REHEARSAL: &str = "rehearsal.js";

/// Shim file that bundles a project.
pub const BUILD: &str = "build.js";
/// Shim file that inspects a file without running it.
pub const CHECK: &str = "check.js";
/// Shim file that compiles a file.
pub const COMPILE: &str = "compile.js";

/// Folder of the runtime in the data directory.
const FOLDER: &str = "runtime";

/// Creates the folder of the runtime, and returns its absolute path. A data directory that is made here is for its
/// owner alone.
fn folder(data_dir: &Path) -> Result<PathBuf, RuntimeError> {
    let data_dir = std::path::absolute(data_dir).map_err(RuntimeError::at(data_dir))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&data_dir).map_err(RuntimeError::at(&data_dir))?;
    let folder = data_dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(RuntimeError::at(&folder))?;
    Ok(folder)
}

/// Without these, Bun obeys a `.env` or `bunfig.toml` in its working directory, and fetches missing packages.
const BUN_FLAGS: [&str; 3] = ["--no-env-file", "--config=/dev/null", "--no-install"];

/// Reason why workers have no runtime, or why an installation failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A Bun that was named explicitly is unusable.
    #[error("{origin} names the Bun at {}, which cannot be used: {reason}", path.display())]
    Unusable {
        /// Source of the path.
        origin: Origin,
        /// Path of the executable.
        path: PathBuf,
        /// Reason why it is unusable.
        reason: Unusable,
    },
    /// No usable Bun in any of the places.
    #[error(
        "found no Bun {} or later ({}); run `levain runtime install --data-dir {}`, or set LEVAIN_BUN to its path",
        minimum_version(), looked.join("; "), quoted(data_dir)
    )]
    NotFound {
        /// The places, each with the reason why it was rejected.
        looked: Vec<String>,
        /// The data directory of the search.
        data_dir: PathBuf,
    },
    /// npm, which installs Bun, is missing.
    #[error(
        "npm, which installs Bun, was not found: install Node's npm, put Bun {} or later on PATH, or set LEVAIN_BUN to \
         its path",
        minimum_version()
    )]
    NpmMissing,
    /// npm was run and failed.
    #[error("npm could not install {package}: {reason}")]
    Npm {
        /// The package and its version.
        package: String,
        /// Failure of npm.
        reason: CommandError,
    },
    /// The installed package does not work here.
    #[error("{package} was installed, but cannot be used: {reason}")]
    Installed {
        /// The package and its version.
        package: String,
        /// Reason why it is unusable.
        reason: Unusable,
    },
    /// A file or folder could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/._-+,:@%".contains(it);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

impl RuntimeError {
    /// Maps an I/O error at this path.
    fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }
}

/// A Bun and the shim's files.
#[derive(Debug, Clone)]
pub struct BunRuntime {
    /// Absolute path of the executable.
    pub bun: PathBuf,
    /// Version of Bun.
    pub version: BunVersion,
    /// Source from which this Bun was chosen.
    pub origin: Origin,
    shim_folder: PathBuf,
}

impl BunRuntime {
    /// Writes the shim into the data directory and combines it with a Bun.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(bun: FoundBun, data_dir: &Path) -> Result<Self, RuntimeError> {
        let folder = shim::write(data_dir)?;
        Ok(Self { bun: bun.path, version: bun.version, origin: bun.origin, shim_folder: folder })
    }

    /// Returns the arguments of a worker that finds the shim in this folder and serves the socket of this name in its
    /// working directory.
    #[must_use]
    pub fn worker_args(shim_folder: &Path, socket: &str) -> Vec<OsString> {
        let shim = shim_folder.join(ENTRY).into_os_string();
        BUN_FLAGS.into_iter().map(OsString::from).chain([shim, socket.into()]).collect()
    }

    /// Returns the arguments with which Bun runs a program of the shim, regardless of the files in its working
    /// directory.
    pub fn tool_args(script: &Path) -> impl Iterator<Item = OsString> {
        BUN_FLAGS.into_iter().map(OsString::from).chain([script.as_os_str().to_owned()])
    }

    /// Absolute path of the shim's folder.
    #[must_use]
    pub fn shim_folder(&self) -> &Path {
        &self.shim_folder
    }

    /// Folder name that separates runtimes whose compiled code may differ.
    #[must_use]
    pub fn name(&self) -> String {
        let shim = self.shim_folder.file_name().unwrap_or_default().to_string_lossy();
        format!("bun-{}-{shim}", self.version).replace('/', "_")
    }
}

#[cfg(test)]
mod tests {
    use super::bun::tests::fake_bun;
    use super::*;

    fn runtime(script: &str) -> (BunRuntime, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = fake_bun(&folder.path().join("bun"), script);
        let bun = FoundBun { path, version: pinned_version().clone(), origin: Origin::Path };
        (BunRuntime::new(bun, folder.path()).expect("the shim"), folder)
    }

    #[test]
    fn a_worker_runs_the_shim_and_nothing_of_its_folder() {
        let (runtime, _folder) = runtime("");
        let args = BunRuntime::worker_args(runtime.shim_folder(), "s");
        let shim = runtime.shim_folder().join(ENTRY);
        let shim = shim.to_str().expect("a plain path");
        assert_eq!(args, ["--no-env-file", "--config=/dev/null", "--no-install", shim, "s"]);
        assert!(runtime.shim_folder().is_absolute());
        let files = [ENTRY, REHEARSAL, BUILD, CHECK, COMPILE];
        assert!(files.iter().all(|name| runtime.shim_folder().join(name).is_file()));
    }

    #[test]
    fn a_runtime_is_named_after_its_bun_and_its_shim() {
        let (mut runtime, _folder) = runtime("");
        let name = runtime.name();
        assert!(name.starts_with(&format!("bun-{}-shim-", pinned_version())), "{name}");
        runtime.version = "1.4.5-canary/../x".parse().expect("a version");
        assert!(!runtime.name().contains('/') && runtime.name() != name);
    }
}
