//! Bun processes without a daemon: Levain's shim driven by hand, and `Bun.serve` with nothing around it.

use crate::{
    Result,
    http1::{Call, HttpCaller},
    load::Caller,
    process::{self, Running},
};
use http::Method;
use levain::{
    protocol::worker::{ASSIGN_PATH, Assignment, FromWorker},
    worker::{BunRuntime, runtime},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
};

/// A worker's socket, in its folder.
const SOCKET: &str = "s";

/// Serves a function on a bare `Bun.serve`, without Levain.
const BARE_SCRIPT: &str = r#"
const [, , unix, entry] = process.argv;
const { default: handler } = await import(entry);
const context = { invocationId: "exec-00000000-0000-7000-8000-000000000000", version: "v1" };
Bun.serve({ unix, idleTimeout: 0, development: false, fetch: (req) => handler(req, context) });
"#;

/// Bun, and the two scripts that these benchmarks run with it.
#[derive(Debug)]
pub(crate) struct Bun {
    runtime: BunRuntime,
    bare_script: PathBuf,
    folder: TempDir,
}

impl Bun {
    /// Finds Bun as Levain does, and installs it if it is missing.
    pub(crate) async fn prepare() -> Result<Self> {
        let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let found = match runtime::find(None, data_dir).await {
            Ok(found) => found,
            Err(_) => runtime::install(data_dir, |line| eprintln!("{line}")).await?,
        };
        let folder = TempDir::new()?;
        let bare_script = folder.path().join("bare.ts");
        fs::write(&bare_script, BARE_SCRIPT)?;
        Ok(Self { runtime: BunRuntime::new(found, folder.path())?, bare_script, folder })
    }

    pub(crate) fn runtime(&self) -> &BunRuntime {
        &self.runtime
    }

    pub(crate) fn path(&self) -> &Path {
        &self.runtime.bun
    }

    pub(crate) fn version(&self) -> String {
        self.runtime.version.to_string()
    }

    /// Returns a TypeScript file as JavaScript.
    pub(crate) fn javascript(&self, file: &Path) -> Result<String> {
        let built = Command::new(self.path()).args(["build", "--no-bundle"]).arg(file).output()?;
        if !built.status.success() {
            return Err(format!("bun build: {}", String::from_utf8_lossy(&built.stderr)).into());
        }
        Ok(String::from_utf8(built.stdout)?)
    }

    /// Starts a worker as the daemon does, and loads the function.
    pub(crate) async fn worker(&self, entry: &Path) -> Result<Process> {
        let (control, stdin) = UnixStream::pair()?;
        let stdin = OwnedFd::from(stdin.into_std()?);
        let arguments = BunRuntime::worker_args(self.runtime.shim_folder(), SOCKET);
        let mut process = self.spawn(arguments, stdin.into())?;
        let mut control = BufReader::new(control);
        let mut line = String::new();
        control.read_line(&mut line).await?;
        let FromWorker::Ready { .. } = serde_json::from_str(&line)? else {
            return Err(format!("expected a ready worker, got `{line}`").into());
        };
        process.control = Some(control.into_inner());
        process.assign(entry).await?;
        Ok(process)
    }

    /// Starts the function under `Bun.serve` and waits until it listens.
    pub(crate) async fn bare(&self, entry: &Path) -> Result<Process> {
        let mut arguments = BunRuntime::worker_args(self.runtime.shim_folder(), SOCKET);
        // The options of Bun stay; only the script differs.
        arguments.truncate(arguments.len() - 2);
        let rest: [OsString; 3] = [self.bare_script.as_os_str().into(), SOCKET.into(), entry.into()];
        arguments.extend(rest);
        let process = self.spawn(arguments, Stdio::null())?;
        process::retry(|| UnixStream::connect(process.socket())).await?;
        Ok(process)
    }

    fn spawn(&self, arguments: Vec<OsString>, stdin: Stdio) -> Result<Process> {
        let folder = TempDir::new_in(self.folder.path())?;
        let mut command = Command::new(self.path());
        command.args(arguments).current_dir(folder.path()).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder.path()).env("TMPDIR", folder.path());
        command.env("BUN_RUNTIME_TRANSPILER_CACHE_PATH", "0").env("DO_NOT_TRACK", "1");
        Ok(Process { _process: Running::spawn(&mut command)?, folder, control: None })
    }
}

/// A Bun process with a function in it.
#[derive(Debug)]
pub(crate) struct Process {
    _process: Running,
    folder: TempDir,
    /// The worker ends when this stream is closed.
    control: Option<UnixStream>,
}

impl Process {
    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    async fn assign(&self, entry: &Path) -> Result<()> {
        let assignment = Assignment {
            function: "bench".into(),
            function_id: "func-00000000-0000-7000-8000-000000000000".into(),
            version: "v1".into(),
            environment: "production".into(),
            entry: entry.to_string_lossy().into_owned(),
            compiled: None,
            handler: "default".into(),
            variables: BTreeMap::new(),
            log_line_bytes_max: 16_384,
            levain: env!("CARGO_PKG_VERSION").into(),
        };
        let body = serde_json::to_vec(&assignment)?.into();
        self.caller(Call { method: Method::PUT, target: ASSIGN_PATH.into(), body, answer_bytes_min: 2 })
            .await?
            .call()
            .await
    }

    /// Opens a connection for one caller.
    pub(crate) async fn caller(&self, call: Call) -> Result<HttpCaller> {
        HttpCaller::connect(&self.socket(), &call).await
    }
}
