//! What a worker runs on: a Bun that is new enough, and the shim.
//!
//! [`find`] looks for Bun and [`install()`] fetches it; [`Runtime::new`] puts the shim, which is part of this binary, on
//! disk. The version that is installed and the oldest one that will do stand in `worker-shim/package.json`.
//!
//! Invariant: whatever appears in the data directory's `runtime` folder under its final name is complete.

mod bun;
mod command;
mod install;
mod shim;

pub use bun::{BunVersion, FoundBun, Origin, Unusable, find, minimum_version, pinned_version};
pub use command::CommandError;
pub use install::install;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The file of the shim that a worker runs.
const ENTRY: &str = "entry.js";

/// The file of the shim that stands for a function in a rehearsal.
pub const REHEARSAL: &str = "rehearsal.js";

/// The file of the shim that makes a bundle of a project.
pub const BUILD: &str = "build.js";
/// The one that tells what can be known of a file without running it.
pub const CHECK: &str = "check.js";
/// The one that compiles a file.
pub const COMPILE: &str = "compile.js";

/// The folder of the data directory that all of this is in.
const FOLDER: &str = "runtime";

/// Without these, Bun runs what a `.env` or `bunfig.toml` in its working directory says, and fetches missing packages.
const BUN_FLAGS: [&str; 3] = ["--no-env-file", "--config=/dev/null", "--no-install"];

/// Why there is nothing to run workers on, or why it did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A Bun that somebody named is of no use.
    #[error("{origin} names the Bun at {}, which cannot be used: {reason}", path.display())]
    Unusable {
        /// Who named it.
        origin: Origin,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: Unusable,
    },
    /// No Bun that will do is where it is looked for.
    #[error(
        "found no Bun {} or later ({}); run `levain runtime install --data-dir {}`, or name one in LEVAIN_BUN",
        minimum_version(), looked.join("; "), quoted(data_dir)
    )]
    NotFound {
        /// The places, each with what was wrong there.
        looked: Vec<String>,
        /// The data directory that it was looked for in.
        data_dir: PathBuf,
    },
    /// Bun is installed with npm.
    #[error(
        "there is no npm to install Bun with: install Node's npm, or put Bun {} or later on PATH, or name one in LEVAIN_BUN",
        minimum_version()
    )]
    NpmMissing,
    /// npm was run and failed.
    #[error("npm could not install {package}: {reason}")]
    Npm {
        /// The package and its version.
        package: String,
        /// What it said.
        reason: CommandError,
    },
    /// What npm installed does not work here.
    #[error("{package} was installed, but cannot be used: {reason}")]
    Installed {
        /// The package and its version.
        package: String,
        /// What is wrong with it.
        reason: Unusable,
    },
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// A path as a shell takes it.
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
    /// To map an I/O error at this path.
    fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }
}

/// A Bun and the shim's files.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The executable, absolute.
    pub bun: PathBuf,
    /// Its version.
    pub version: BunVersion,
    /// Why it is this one.
    pub origin: Origin,
    shim_folder: PathBuf,
}

impl Runtime {
    /// Puts the shim into the data directory and makes a runtime of it and a Bun.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(bun: FoundBun, data_dir: &Path) -> Result<Self, RuntimeError> {
        let folder = shim::write(data_dir)?;
        Ok(Self { bun: bun.path, version: bun.version, origin: bun.origin, shim_folder: folder })
    }

    /// The arguments of a worker that finds the shim in this folder and serves the socket of this name in its working
    /// directory.
    #[must_use]
    pub fn worker_args(shim_folder: &Path, socket: &str) -> Vec<OsString> {
        let shim = shim_folder.join(ENTRY).into_os_string();
        BUN_FLAGS.into_iter().map(OsString::from).chain([shim, socket.into()]).collect()
    }

    /// The arguments that have Bun run a program of the shim's, and nothing that its working directory says.
    pub fn tool_args(script: &Path) -> impl Iterator<Item = OsString> {
        BUN_FLAGS.into_iter().map(OsString::from).chain([script.as_os_str().to_owned()])
    }

    /// The folder of the shim's files, absolute.
    #[must_use]
    pub fn shim_folder(&self) -> &Path {
        &self.shim_folder
    }

    /// Tells runtimes apart whose compiled forms may differ, as the name of a folder.
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

    fn runtime(script: &str) -> (Runtime, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = fake_bun(&folder.path().join("bun"), script);
        let bun = FoundBun { path, version: pinned_version().clone(), origin: Origin::Path };
        (Runtime::new(bun, folder.path()).expect("the shim"), folder)
    }

    #[test]
    fn a_worker_runs_the_shim_and_nothing_of_its_folder() {
        let (runtime, _folder) = runtime("");
        let args = Runtime::worker_args(runtime.shim_folder(), "s");
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
