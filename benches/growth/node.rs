//! `levain serve` as a process of its own, and the CPU time that it spends.

use crate::{
    Result,
    process::{self, CpuTime, Running},
};
use futures_util::future::LocalBoxFuture;
use levain::{
    client::Client,
    protocol::{
        field::Body,
        message::{DeployRequest, RegisterRequest},
    },
    worker::runtime,
};
use std::{
    cell::Cell,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Rounds of a measurement, of which the cheapest counts: the machine's other load only adds.
const ROUNDS: usize = 3;

/// A daemon on a data directory of its own.
#[derive(Debug)]
pub(crate) struct Node {
    process: Running,
    pub(crate) client: Client,
    /// Number of operations so far, for those that alternate.
    pub(crate) turn: Cell<u32>,
    /// Removed on drop.
    _data_dir: TempDir,
}

impl Node {
    /// Starts a daemon whose deployments start no worker.
    pub(crate) async fn start() -> Result<Self> {
        let data_dir = TempDir::new()?;
        let log = data_dir.path().join("daemon.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_levain"));
        command.arg("serve").arg("--data-dir").arg(data_dir.path()).arg("--http").arg("off");
        command.current_dir(data_dir.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", data_dir.path());
        command.env("LEVAIN_BUN", bun().await?).env("LEVAIN_VERSIONING_VERIFY", "syntax");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let process = Running::spawn(&mut command)?;
        let socket = data_dir.path().join("levain.sock");
        let client = process::retry(|| Client::connect(&socket)).await;
        let client = client.map_err(|error| format!("{error}\n{}", fs::read_to_string(&log).unwrap_or_default()))?;
        Ok(Self { process, client, turn: Cell::new(0), _data_dir: data_dir })
    }

    /// CPU milliseconds of one operation.
    pub(crate) async fn cost<'a>(
        &self,
        operations: u32,
        operate: impl Fn() -> LocalBoxFuture<'a, Result<()>>,
    ) -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            // Work that the growth has left behind does not belong to the operations.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let before = CpuTime::of(self.process.pid())?;
            for _ in 0..operations {
                operate().await?;
                self.turn.set(self.turn.get() + 1);
            }
            let spent = CpuTime::of(self.process.pid())?.since(&before);
            least = least.min(spent.as_secs_f64() * 1e3 / f64::from(operations));
        }
        Ok(least)
    }

    pub(crate) async fn register(&self, name: &str) -> Result<()> {
        self.client.call(&RegisterRequest { name: name.into(), ..RegisterRequest::default() }).await?;
        Ok(())
    }

    /// Deploys this code as a new version.
    pub(crate) async fn deploy(&self, name: &str, code: String, activate: bool) -> Result<()> {
        let bundle = Some(Body::from(code.into_bytes()));
        let request = DeployRequest {
            function_id: name.into(),
            bundle,
            create: true,
            activate: Some(activate),
            ..DeployRequest::default()
        };
        self.client.call(&request).await?;
        Ok(())
    }
}

/// Bun as Levain finds it; installed below `target/` if it is missing.
async fn bun() -> Result<PathBuf> {
    let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let found = match runtime::find(None, data_dir).await {
        Ok(found) => found,
        Err(_) => runtime::install(data_dir, |line| eprintln!("{line}")).await?,
    };
    Ok(found.path)
}
