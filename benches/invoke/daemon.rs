//! `levain serve` as a process of its own, and its callers.

use crate::{
    Result,
    floor::Sizes,
    load::Caller,
    process::{self, Running},
};
use futures_util::future::try_join_all;
use levain::{
    client::{Client, ClientError},
    config::SandboxMode,
    error::ErrorCode,
    model::{ColdStart, SettingsPatch},
    protocol::{
        field::Body,
        ipc::{CommandRequest, Encoding},
        message::{
            DeleteRequest, DeployRequest, InvokeRequest, InvokeResponse, RegisterRequest, StatusRequest, WarmupRequest,
        },
    },
};
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Number of deployments in progress at once.
const DEPLOYS_AT_ONCE: usize = 8;

/// A daemon on a data directory of its own.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Running,
    http: SocketAddr,
    client: Client,
    data_dir: TempDir,
}

impl Daemon {
    /// Starts a daemon with this many prewarmed processes and the default configuration, save that a deployment starts
    /// no worker: nothing is warm before its first invocation.
    pub(crate) async fn start(bun: &Path, prewarmed: u32) -> Result<Self> {
        Self::start_with(bun, prewarmed, SandboxMode::Auto).await
    }

    /// Starts a daemon as [`Self::start`] does, with or without isolation of functions.
    pub(crate) async fn start_with(bun: &Path, prewarmed: u32, sandbox: SandboxMode) -> Result<Self> {
        let data_dir = TempDir::new()?;
        let log = data_dir.path().join("daemon.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_levain"));
        command.arg("serve").arg("--data-dir").arg(data_dir.path()).current_dir(data_dir.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", data_dir.path());
        command.env("LEVAIN_BUN", bun).env("LEVAIN_VERSIONING_VERIFY", "syntax");
        let http = free_address()?;
        command.env("LEVAIN_HTTP_ADDRESS", http.to_string());
        command.env("LEVAIN_WORKERS_PREWARMED_WORKERS", prewarmed.to_string());
        if sandbox == SandboxMode::Off {
            command.env("LEVAIN_SANDBOX_MODE", "off");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut process = Running::spawn(&mut command)?;
        let socket = data_dir.path().join("levain.sock");
        match process::retry(|| Client::connect(&socket)).await {
            Ok(client) => Ok(Self { process, http, client, data_dir }),
            Err(error) => {
                let ended = if process.has_ended()? { "the daemon has ended" } else { "the daemon does not answer" };
                Err(format!("{ended}: {error}\n{}", fs::read_to_string(&log)?).into())
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Address of the daemon's HTTP listener.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Process ids of the daemon's workers.
    pub(crate) fn workers(&self) -> Result<Vec<u32>> {
        process::living_below(&self.data_dir.path().join("run"))
    }

    /// Opens another connection.
    pub(crate) async fn connect(&self) -> Result<Client> {
        Ok(Client::connect(self.data_dir.path().join("levain.sock")).await?)
    }

    /// Registers a function and deploys a sample as its first version.
    pub(crate) async fn deploy(&self, name: &str, sample: &Path) -> Result<()> {
        self.deploy_with(name, sample, SettingsPatch::default()).await
    }

    /// Registers a function with settings and deploys a sample as its first version.
    pub(crate) async fn deploy_with(&self, name: &str, sample: &Path, settings: SettingsPatch) -> Result<()> {
        let function = RegisterRequest { name: name.into(), settings: Some(settings), ..RegisterRequest::default() };
        self.client.call(&function).await?;
        let bundle = Some(Body::from(fs::read(sample)?));
        let entry = sample.file_name().map(|it| it.to_string_lossy().into_owned());
        let request = DeployRequest { function_id: name.into(), bundle, entry, ..DeployRequest::default() };
        self.client.call(&request).await?;
        Ok(())
    }

    /// Deploys a sample under many names.
    pub(crate) async fn deploy_all(&self, names: &[String], sample: &Path) -> Result<()> {
        for names in names.chunks(DEPLOYS_AT_ONCE) {
            try_join_all(names.iter().map(|name| self.deploy(name, sample))).await?;
        }
        Ok(())
    }

    /// Deletes a function, which ends its workers.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.client.call(&DeleteRequest { function_id: name.into() }).await?;
        Ok(())
    }

    /// Starts a worker of a function.
    pub(crate) async fn warm(&self, name: &str) -> Result<()> {
        let request = WarmupRequest { function_id: name.into(), count: 1, qualifier: None };
        self.client.call(&request).await?;
        Ok(())
    }

    /// Waits until this many prewarmed processes are ready.
    pub(crate) async fn until_prewarmed(&self, count: u32) -> Result<()> {
        while self.client.call(&StatusRequest {}).await?.prewarmed != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Lets the processor become as quiet as before any other measurement.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(())
    }

    /// Invokes a function without a worker once, and checks the kind of cold start.
    pub(crate) async fn call_cold(&self, name: &str, expected: ColdStart) -> Result<Duration> {
        let began = Instant::now();
        let found = invoke(&self.client, &get(name)).await?.cold_start;
        let took = began.elapsed();
        if found == expected { Ok(took) } else { Err(format!("{name}: expected {expected:?}, got {found:?}").into()) }
    }

    /// Returns the sizes of an invocation's request and answer, in bytes.
    pub(crate) async fn sizes(&self, request: &InvokeRequest) -> Result<Sizes> {
        let payload = Encoding::MessagePack.write(request)?;
        let (_, answer) = self.client.call_raw(InvokeRequest::COMMAND, &payload).await?;
        Ok(Sizes { request: payload.len(), answer: answer.len() })
    }

    /// Opens a connection for each caller.
    pub(crate) async fn callers(&self, request: &InvokeRequest, count: usize) -> Result<Vec<IpcCaller>> {
        let clients = try_join_all((0..count).map(|_| self.connect())).await?;
        Ok(clients.into_iter().map(|client| IpcCaller { client, request: request.clone() }).collect())
    }

    /// Creates callers that share one connection.
    pub(crate) async fn callers_on_one(&self, request: &InvokeRequest, count: usize) -> Result<Vec<IpcCaller>> {
        let client = self.connect().await?;
        Ok((0..count).map(|_| IpcCaller { client: client.clone(), request: request.clone() }).collect())
    }
}

/// Returns a loopback address without a listener.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// `GET /` of a function.
pub(crate) fn get(name: &str) -> InvokeRequest {
    InvokeRequest { function_id: name.into(), ..InvokeRequest::default() }
}

/// A sample function of the repository.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles").join(name).join("index.ts")
}

/// Invokes one function through the command socket, as every client does.
#[derive(Debug)]
pub(crate) struct IpcCaller {
    client: Client,
    request: InvokeRequest,
}

impl IpcCaller {
    /// Makes one invocation, which must fail with this code.
    pub(crate) async fn fail(&mut self, expected: ErrorCode) -> Result<()> {
        let answer = self.client.call(&self.request).await;
        let code = match &answer {
            Ok(answer) => answer.code,
            Err(ClientError::Refused(error)) => Some(error.code),
            Err(_) => None,
        };
        if code == Some(expected) {
            return Ok(());
        }
        Err(format!("{} should fail with {expected}: {answer:?}", self.request.function_id).into())
    }

    /// Makes one invocation, and returns whether it was answered; being refused for this reason is allowed too.
    pub(crate) async fn call_or(&mut self, reason: ErrorCode) -> Result<bool> {
        match self.client.call(&self.request).await {
            Ok(answer) if answer.status == 200 => Ok(true),
            Ok(answer) => Err(format!("{} failed: {answer:?}", self.request.function_id).into()),
            Err(ClientError::Refused(error)) if error.code == reason => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Caller for IpcCaller {
    async fn call(&mut self) -> Result<()> {
        invoke(&self.client, &self.request).await?;
        Ok(())
    }
}

async fn invoke(client: &Client, request: &InvokeRequest) -> Result<InvokeResponse> {
    let answer = client.call(request).await?;
    let sent = request.body.as_ref().map_or(1, |body| body.0.len());
    if answer.status == 200 && answer.body.0.len() >= sent {
        return Ok(answer);
    }
    let InvokeResponse { status, error, .. } = answer;
    Err(format!("{} answered {status} {}", request.function_id, error.unwrap_or_default()).into())
}
