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

use crate::protocol::worker::{Compilation, SyntaxCheck};
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// The file of the shim that a worker runs.
const ENTRY: &str = "entry.js";

/// The file of the shim that stands for a function in a rehearsal.
pub const REHEARSAL: &str = "rehearsal.js";

/// The folder of the data directory that all of this is in.
const FOLDER: &str = "runtime";

/// Without these, Bun runs what a `.env` or `bunfig.toml` in its working directory says, and fetches missing packages.
const BUN_FLAGS: [&str; 3] = ["--no-env-file", "--config=/dev/null", "--no-install"];

/// How long the syntax check of a file may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(10);

/// How much a program of the shim's may print; the check reports a bounded number of errors.
const TOOL_OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How long the compilation of a file may take; nobody waits for it, and it gives way to everything else.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(30);

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
    /// The compilation failed, which says nothing about the file.
    #[error("cannot compile {}: {reason}", file.display())]
    Compile {
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

    /// Parses a file with Bun's own parser; nothing in it is run.
    ///
    /// # Errors
    /// When Bun cannot be run, takes too long or says something else. A file that does not parse is no error.
    pub async fn check_syntax(&self, file: &Path) -> Result<SyntaxCheck, RuntimeError> {
        // An absolute path is never taken for an option.
        let file = std::path::absolute(file).map_err(RuntimeError::at(file))?;
        let mut command = self.tool("check.js");
        command.arg(&file);
        read(command, CHECK_TIME_MAX).await.map_err(|reason| RuntimeError::Check { file, reason })
    }

    /// Puts the compiled form of a file into an empty folder; nothing in it is run. Source maps there say `name` where
    /// they mean the file.
    ///
    /// # Errors
    /// When Bun cannot be run, takes too long or says something else. A file that is not to be compiled is no error.
    pub async fn compile(&self, file: &Path, folder: &Path, name: &str) -> Result<Compilation, RuntimeError> {
        let mut command = self.tool("compile.js");
        command.arg(file).arg(folder).arg(name);
        read(command, COMPILE_TIME_MAX).await.map_err(|reason| RuntimeError::Compile { file: file.into(), reason })
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

    /// A program of the shim's, with nothing of the daemon's environment.
    fn tool(&self, script: &str) -> Command {
        let mut command = Command::new(&self.bun);
        command.args(BUN_FLAGS).arg(self.shim_folder.join(script));
        command.env_clear().env("DO_NOT_TRACK", "1").env("BUN_RUNTIME_TRANSPILER_CACHE_PATH", "0").current_dir("/");
        command
    }
}

/// Runs a program and reads the JSON that it prints.
async fn read<T: DeserializeOwned>(command: Command, time_max: Duration) -> Result<T, CommandError> {
    let text = command::run(command, time_max, TOOL_OUTPUT_BYTES_MAX).await?;
    serde_json::from_str(&text).map_err(|_| CommandError::Unexpected { output: command::excerpt(&text) })
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
        let files = [ENTRY, REHEARSAL, "check.js", "compile.js"];
        assert!(files.iter().all(|name| runtime.shim_folder().join(name).is_file()));
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
    async fn a_compilation_is_what_bun_prints() {
        let (runtime, _folder) = runtime(
            r#"[ "${4##*/}" = compile.js ] && [ "$5 $6 $7" = "/x/a.js /out ../a.js" ] && [ -z "$HOME" ] || exit 3
            echo '{"ok":false,"reason":"no"}'"#,
        );
        let outcome = runtime.compile(Path::new("/x/a.js"), Path::new("/out"), "../a.js").await.expect("an outcome");
        assert_eq!(outcome, Compilation { ok: false, reason: Some("no".into()) });
        let error = runtime.compile(Path::new("/x/b.js"), Path::new("/out"), "../a.js").await.expect_err("no outcome");
        assert!(error.to_string().starts_with("cannot compile /x/b.js: it ended with exit status: 3"), "{error}");
    }

    #[test]
    fn a_runtime_is_named_after_its_bun_and_its_shim() {
        let (mut runtime, _folder) = runtime("");
        let name = runtime.name();
        assert!(name.starts_with(&format!("bun-{}-shim-", pinned_version())), "{name}");
        runtime.version = "1.4.5-canary/../x".parse().expect("a version");
        assert!(!runtime.name().contains('/') && runtime.name() != name);
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
