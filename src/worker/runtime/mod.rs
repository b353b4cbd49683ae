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

use crate::protocol::worker::SyntaxCheck;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// The folder of the data directory that all of this is in.
const FOLDER: &str = "runtime";

/// Without these, Bun runs what a `.env` or `bunfig.toml` in its working directory says, and fetches missing packages.
const BUN_FLAGS: [&str; 3] = ["--no-env-file", "--config=/dev/null", "--no-install"];

/// How long the syntax check of a file may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(10);

/// How much it may print; it reports a bounded number of errors.
const CHECK_OUTPUT_BYTES_MAX: u64 = 1 << 20;

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
        "found no Bun {} or later ({}); run `levain runtime install`, or name one in LEVAIN_BUN",
        minimum_version(), looked.join("; ")
    )]
    NotFound {
        /// The places, each with what was wrong there.
        looked: Vec<String>,
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
    /// The syntax check failed, which says nothing about the syntax.
    #[error("cannot check the syntax of {}: {reason}", file.display())]
    Check {
        /// The file.
        file: PathBuf,
        /// How it failed.
        reason: CommandError,
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
    /// The shim's entry point, absolute.
    pub shim: PathBuf,
    check: PathBuf,
}

impl Runtime {
    /// Puts the shim into the data directory and makes a runtime of it and a Bun.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(bun: FoundBun, data_dir: &Path) -> Result<Self, RuntimeError> {
        let folder = shim::write(data_dir)?;
        Ok(Self {
            bun: bun.path,
            version: bun.version,
            origin: bun.origin,
            shim: folder.join("entry.js"),
            check: folder.join("check.js"),
        })
    }

    /// The arguments of a worker that serves the socket of this name in its working directory.
    #[must_use]
    pub fn worker_args(&self, socket: &str) -> Vec<OsString> {
        let shim = self.shim.clone().into_os_string();
        BUN_FLAGS.into_iter().map(OsString::from).chain([shim, socket.into()]).collect()
    }

    /// Parses a file with Bun's own parser; nothing in it is run.
    ///
    /// # Errors
    /// When Bun cannot be run, takes too long or says something else. A file that does not parse is no error.
    pub async fn check_syntax(&self, file: &Path) -> Result<SyntaxCheck, RuntimeError> {
        // An absolute path is never taken for an option.
        let file = std::path::absolute(file).map_err(RuntimeError::at(file))?;
        let mut command = Command::new(&self.bun);
        command.args(BUN_FLAGS).arg(&self.check).arg(&file);
        command.env_clear().env("DO_NOT_TRACK", "1").env("BUN_RUNTIME_TRANSPILER_CACHE_PATH", "0").current_dir("/");
        let checked = command::run(command, CHECK_TIME_MAX, CHECK_OUTPUT_BYTES_MAX).await;
        let parsed = checked.and_then(|text| {
            serde_json::from_str(&text).map_err(|_| CommandError::Unexpected { output: command::excerpt(&text) })
        });
        parsed.map_err(|reason| RuntimeError::Check { file, reason })
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
        let args = runtime.worker_args("s");
        let shim = runtime.shim.to_str().expect("a plain path");
        assert_eq!(args, ["--no-env-file", "--config=/dev/null", "--no-install", shim, "s"]);
        assert!(runtime.shim.is_absolute() && runtime.shim.is_file() && runtime.check.is_file());
    }

    #[tokio::test]
    async fn the_syntax_check_is_what_bun_prints() {
        let (runtime, _folder) = runtime(
            r#"[ "$5" = /x/index.ts ] && [ "${4##*/}" = check.js ] && [ -z "$HOME" ] && echo '{"ok":true,"exports":["default"]}'"#,
        );
        let check = runtime.check_syntax(Path::new("/x/index.ts")).await.expect("a check");
        assert!(check.ok);
        assert_eq!(check.exports, ["default"]);
    }

    #[tokio::test]
    async fn a_syntax_check_that_fails_says_how() {
        let error = |script: &'static str| async move {
            let (runtime, _folder) = runtime(script);
            runtime.check_syntax(Path::new("/x.ts")).await.expect_err("no check").to_string()
        };
        assert_eq!(error("echo hello").await, "cannot check the syntax of /x.ts: it said something unexpected: hello");
        let text = error("echo oh no >&2; exit 3").await;
        assert_eq!(text, "cannot check the syntax of /x.ts: it ended with exit status: 3: oh no");
        let text = error("kill -SEGV $$").await;
        assert!(text.contains("signal: 11"), "{text}");
    }
}
