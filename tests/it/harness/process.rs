//! The real binary as a child process.

use super::{bun, until, workers_of};
use levain::client::Client;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// A `levain serve` on a data directory that may outlive it.
pub struct DaemonProcess {
    child: Child,
    data_dir: PathBuf,
}

impl DaemonProcess {
    /// The binary with a clean environment and the tests' Bun.
    pub async fn command(data_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levain"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", data_dir).env("LEVAIN_BUN", bun().await);
        command.current_dir(data_dir).stdin(Stdio::null());
        command
    }

    /// Starts `levain serve` and waits until it answers.
    pub async fn start(data_dir: &Path) -> Self {
        let mut command = Self::command(data_dir).await;
        command.arg("serve").arg("--data-dir").arg(data_dir);
        Self::spawn(command, data_dir).await
    }

    /// Starts a prepared `levain serve` and waits until it answers.
    pub async fn spawn(mut command: Command, data_dir: &Path) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut daemon = Self { child, data_dir: data_dir.to_owned() };
        let socket = daemon.socket();
        until("the daemon answers", || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended while it was starting: {ended:?}");
            let socket = socket.clone();
            async move { Client::connect(&socket).await.ok() }
        })
        .await;
        daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("levain.sock")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.socket()).await.expect("the daemon answers")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end, and that no worker is left.
    pub async fn ended(mut self) -> ExitStatus {
        let status = until("the daemon ends", || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await;
        self.no_workers().await;
        status
    }

    /// Kills it as `kill -9` does, and waits until the kernel has ended its workers too.
    pub async fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.no_workers().await;
    }

    async fn no_workers(&self) {
        until("no worker is left", || {
            let left = workers_of(&self.data_dir);
            async move { left.is_empty().then_some(()) }
        })
        .await;
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
