//! The real binary as a child process.

use super::{bun, until, workers_of};
use levain::{client::Client, protocol::message::StatusRequest};
use std::{
    fs::File,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// Time limit of one CLI command.
const PATIENCE: Duration = Duration::from_secs(20);

/// A `levain serve` process; its data directory may outlive it.
pub struct DaemonProcess {
    child: Child,
    /// Working directory of the process.
    folder: PathBuf,
    data_dir: PathBuf,
    stderr: File,
}

impl DaemonProcess {
    /// Runs the binary with a clean environment and the tests' Bun.
    pub async fn command(data_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levain"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", data_dir).env("LEVAIN_BUN", bun().await);
        // Tests run side by side, and most of them do not need HTTP.
        command.env("LEVAIN_HTTP_ADDRESS", "off");
        command.current_dir(data_dir).stdin(Stdio::null());
        command
    }

    /// Runs `levain serve` on this data directory.
    pub async fn serve(data_dir: &Path) -> Command {
        let mut command = Self::command(data_dir).await;
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command
    }

    /// Runs `levain serve` in this folder as in the README: it keeps everything in the folder `data` there.
    pub async fn serve_in(folder: &Path) -> Command {
        let mut command = Self::command(folder).await;
        command.arg("serve");
        command
    }

    /// Starts `levain serve` in a folder as in the README, and waits until it answers.
    pub async fn start_in(folder: &Path) -> Self {
        Self::spawn(Self::serve_in(folder).await, &folder.join("data")).await
    }

    /// Starts `levain serve` and waits until it answers.
    pub async fn start(data_dir: &Path) -> Self {
        Self::spawn(Self::serve(data_dir).await, data_dir).await
    }

    /// Starts `levain serve` with functions that see the processes and files of the machine.
    pub async fn start_unconfined(data_dir: &Path) -> Self {
        let mut command = Self::serve(data_dir).await;
        command.env("LEVAIN_SANDBOX_MODE", "off");
        Self::spawn(command, data_dir).await
    }

    /// Starts a prepared `levain serve` and waits until it answers.
    pub async fn spawn(command: Command, data_dir: &Path) -> Self {
        let daemon = Self::try_spawn(command, data_dir).await;
        daemon.unwrap_or_else(|reason| panic!("the daemon ended while it was starting: {reason}"))
    }

    /// Starts a prepared `levain serve` that may refuse to start; the error is its output then.
    pub async fn try_spawn(command: Command, data_dir: &Path) -> Result<Self, String> {
        let mut daemon = Self::begin(command, data_dir);
        let socket = daemon.socket();
        until("the daemon answers or ends", || {
            let ended = daemon.child.try_wait().unwrap();
            let (socket, pid) = (socket.clone(), daemon.pid());
            let refusal = ended.map(|status| Err(format!("{status}\n{}", daemon.stderr())));
            // A process that a killed daemon was starting keeps the listener for another moment, but does not accept.
            async move {
                if refusal.is_some() {
                    return refusal;
                }
                let client = Client::connect(&socket).await.ok()?;
                let status = client.call(&StatusRequest {}).await.ok()?;
                (status.pid == pid).then_some(Ok(()))
            }
        })
        .await
        .map(|()| daemon)
    }

    /// Starts a prepared `levain serve` without waiting.
    pub fn begin(mut command: Command, data_dir: &Path) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let folder = command.get_current_dir().unwrap_or(data_dir).to_owned();
        let child = command.stdout(Stdio::null()).stderr(stderr.try_clone().unwrap()).spawn().unwrap();
        Self { child, folder, data_dir: data_dir.to_owned(), stderr }
    }

    /// Address of the HTTP listener, once the daemon has logged it.
    pub async fn http(&self) -> SocketAddr {
        until("the daemon logs its HTTP address", || {
            let said = self.stderr();
            let address = said.split("\"http\":\"").nth(1).and_then(|it| it.split('"').next()?.parse().ok());
            async move { address }
        })
        .await
    }

    /// Runs a command to its end; one that hangs fails the test.
    pub async fn output(command: Command) -> Output {
        let mut command = tokio::process::Command::from(command);
        let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{command:?} hangs")).unwrap();
        let text = |bytes| String::from_utf8(bytes).expect("the output is text");
        Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// One shell line in the daemon's working directory, for this daemon; `levain` is the binary in `binaries`.
    pub async fn shell(&self, line: &str, binaries: &str) -> Command {
        let levain = self.client_command().await;
        let mut command = Command::new("/bin/sh");
        command.env_clear().envs(levain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", format!("{binaries}:/usr/bin:/bin"));
        command.args(["-e", "-c", line]).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// The binary in the daemon's working directory. A daemon in the default place needs no further setting.
    async fn client_command(&self) -> Command {
        let mut command = Self::command(&self.folder).await;
        if self.data_dir != self.folder.join("data") {
            command.env("LEVAIN_SOCKET", self.socket());
        }
        command
    }

    /// Runs one CLI command for this daemon.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.client_command().await;
        command.args(arguments);
        Self::output(command).await
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("levain.sock")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        let mut bytes = vec![0; self.stderr.metadata().unwrap().len() as usize];
        self.stderr.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.socket()).await.expect("the daemon answers")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits until the process and all its workers have ended.
    pub async fn ended(mut self) -> ExitStatus {
        let status = until("the daemon ends", || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await;
        self.no_workers().await;
        status
    }

    /// Kills the process as `kill -9` does, and waits until the kernel has ended its workers too.
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

/// Outcome of one CLI command.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must succeed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard output as one line of JSON.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
