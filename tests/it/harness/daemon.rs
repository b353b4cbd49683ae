//! A daemon inside the test's process, on a data directory of its own.

use super::{bun, samples, until, workers_of};
use levain::{
    client::{Client, ClientError},
    config::{Config, SandboxMode},
    daemon::Daemon,
    error::{Error, ErrorCode},
    model::SettingsPatch,
    protocol::{
        field::Body,
        ipc::CommandRequest,
        message::{
            DeployRequest, DeployResponse, DeploymentInfo, DeploymentsRequest, FunctionInfo, GetRequest, InvokeRequest,
            InvokeResponse, LogLine, LogsRequest, PoolInfo, RegisterRequest, StatusRequest, StatusResponse,
            UpdateRequest, VersionInfo, VersionsRequest,
        },
    },
};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A running daemon and a client of it.
pub struct TestDaemon {
    daemon: Option<Daemon>,
    config: Config,
    client: Client,
    data: TempDir,
}

impl TestDaemon {
    /// Starts a daemon with the default configuration.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a daemon whose functions see the processes and files of the machine, for tests that need them.
    pub async fn start_unconfined() -> Self {
        Self::start_with(|config| config.sandbox.mode = SandboxMode::Off).await
    }

    /// Starts a daemon for tests with a [`Gate`](super::Gate): it has no sandbox, and functions may take a minute to
    /// load.
    pub async fn start_gated(change: impl FnOnce(&mut Config)) -> Self {
        let gated = |config: &mut Config| {
            (config.sandbox.mode, config.workers.start_timeout_ms) = (SandboxMode::Off, 60_000);
            change(config);
        };
        Self::start_with(gated).await
    }

    /// Starts a daemon with a changed configuration.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.daemon.data_dir = data.path().to_str().unwrap().into();
        config.runtime.bun = bun().await.to_str().unwrap().into();
        // By default, tests that count processes count only those of functions.
        config.workers.prewarmed_workers = 0;
        config.versioning.rollback_warm_seconds = 0;
        config.http.address = "off".into();
        change(&mut config);
        let daemon = Daemon::start(config.clone()).await.expect("the daemon starts");
        let client = Client::connect(daemon.socket()).await.expect("the daemon answers");
        Self { daemon: Some(daemon), config, client, data }
    }

    /// The client that all helpers below use.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Opens another connection.
    pub async fn connect(&self) -> Client {
        Client::connect(self.socket()).await.expect("the daemon answers")
    }

    pub fn socket(&self) -> PathBuf {
        self.daemon.as_ref().unwrap().socket().to_owned()
    }

    /// Address of the daemon's HTTP listener.
    pub fn http(&self) -> std::net::SocketAddr {
        self.daemon.as_ref().unwrap().http().expect("the test's configuration enables HTTP")
    }

    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Registers a function.
    pub async fn register(&self, name: &str) {
        let request = RegisterRequest { name: name.into(), ..RegisterRequest::default() };
        self.client.call(&request).await.expect("the name is free");
    }

    /// Registers a function and deploys one file's text as its first version.
    pub async fn deploy_text(&self, name: &str, text: &str) -> DeployResponse {
        self.register(name).await;
        self.redeploy_text(name, None, text).await.expect("the bundle is good")
    }

    /// Deploys one file's text.
    pub async fn redeploy_text(&self, name: &str, version: Option<&str>, text: &str) -> Result<DeployResponse, Error> {
        let request = DeployRequest {
            function_id: name.into(),
            version: version.map(Into::into),
            bundle: Some(Body::from(text.as_bytes().to_vec())),
            ..DeployRequest::default()
        };
        self.client.call(&request).await.map_err(refused)
    }

    /// Registers and deploys a sample of `bundles/` under the last part of its name.
    pub async fn deploy_sample(&self, sample: &str) -> Result<DeployResponse, Error> {
        let name = sample.rsplit('/').next().unwrap();
        self.register(name).await;
        let path = samples::folder(sample).to_str().unwrap().to_owned();
        let request = DeployRequest { function_id: name.into(), bundle_path: Some(path), ..DeployRequest::default() };
        self.client.call(&request).await.map_err(refused)
    }

    /// Invokes with `GET /`.
    pub async fn invoke(&self, name: &str) -> Result<InvokeResponse, Error> {
        self.invoke_with(InvokeRequest { function_id: name.into(), ..InvokeRequest::default() }).await
    }

    pub async fn invoke_with(&self, request: InvokeRequest) -> Result<InvokeResponse, Error> {
        self.client.call(&request).await.map_err(refused)
    }

    /// Sends any request.
    pub async fn call<R: CommandRequest>(&self, request: &R) -> Result<R::Response, Error> {
        self.client.call(request).await.map_err(refused)
    }

    /// Registers a function with settings of its own.
    pub async fn register_with(&self, name: &str, settings: SettingsPatch) {
        let settings = Some(settings);
        let request = RegisterRequest { name: name.into(), settings, ..RegisterRequest::default() };
        self.call(&request).await.expect("the name is free");
    }

    /// Changes a function's settings.
    pub async fn update(&self, name: &str, settings: SettingsPatch) -> Result<FunctionInfo, Error> {
        self.call(&UpdateRequest { function_id: name.into(), settings }).await
    }

    /// Invokes with `GET` and a path that may have a query.
    pub async fn get(&self, name: &str, path: &str) -> InvokeResponse {
        let outcome = self.invoke_with(get(name, path)).await;
        outcome.unwrap_or_else(|error| panic!("{name} {path}: {error:?}"))
    }

    /// Invokes with `GET` in a task and on a connection of its own. Aborting the task disconnects the client.
    pub async fn get_beside(&self, name: &str, path: &str) -> JoinHandle<Result<InvokeResponse, Error>> {
        let (client, request) = (self.connect().await, get(name, path));
        tokio::spawn(async move { client.call(&request).await.map_err(refused) })
    }

    pub async fn status(&self) -> StatusResponse {
        self.call(&StatusRequest {}).await.expect("a status")
    }

    pub async fn info(&self, name: &str) -> FunctionInfo {
        self.call(&GetRequest { function_id: name.into() }).await.expect("the function is there")
    }

    /// The pools of a function's versions.
    pub async fn pools(&self, name: &str) -> Vec<PoolInfo> {
        self.info(name).await.pools
    }

    /// Waits until one of the function's pools satisfies a condition.
    pub async fn until_pool(&self, name: &str, what: &str, condition: impl Fn(&PoolInfo) -> bool) -> PoolInfo {
        let condition = &condition;
        until(what, || async move { self.pools(name).await.into_iter().find(condition) }).await
    }

    pub async fn versions(&self, name: &str) -> Vec<VersionInfo> {
        self.call(&VersionsRequest { function_id: name.into(), ..VersionsRequest::default() })
            .await
            .expect("the function is there")
            .versions
    }

    pub async fn deployments(&self, name: &str) -> Vec<DeploymentInfo> {
        let request = DeploymentsRequest { function_id: name.into(), ..DeploymentsRequest::default() };
        self.call(&request).await.expect("the function is there").deployments
    }

    /// Every line that a function has logged so far.
    pub async fn logs(&self, name: &str) -> Vec<LogLine> {
        let request = LogsRequest { function_id: name.into(), limit: Some(1_000), ..LogsRequest::default() };
        self.call(&request).await.expect("the function is there").logs
    }

    /// Waits for a log line that contains a text.
    pub async fn until_logged(&self, name: &str, part: &str) -> LogLine {
        let what = format!("{name} logs «{part}»");
        until(&what, || async { self.logs(name).await.into_iter().find(|line| line.message.contains(part)) }).await
    }

    /// Process ids of all workers.
    pub fn worker_pids(&self) -> Vec<u32> {
        workers_of(self.data.path())
    }

    /// Waits for the end of the last worker.
    pub async fn until_no_workers(&self) {
        until("the last worker ends", || async { self.worker_pids().is_empty().then_some(()) }).await;
    }

    /// Folder of a version's bundle.
    pub fn bundle_folder(&self, function_id: impl Display, version: impl Display) -> PathBuf {
        self.data.path().join(format!("bundles/{function_id}/{version}"))
    }

    /// Stops the daemon and starts it again on the same data directory.
    pub async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    /// Restarts the daemon, with a change of configuration or files in between.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.daemon.take().unwrap().shutdown().await;
        change(&mut self.config);
        let daemon = Daemon::start(self.config.clone()).await.expect("the daemon starts again");
        self.client = Client::connect(daemon.socket()).await.expect("the daemon answers");
        self.daemon = Some(daemon);
    }

    /// Stops the daemon and checks that it leaves no process and no socket behind.
    pub async fn stop(mut self) {
        let socket = self.socket();
        self.daemon.take().unwrap().shutdown().await;
        assert!(!socket.exists(), "the socket file is left");
        assert_eq!(workers_of(self.data.path()), [] as [u32; 0], "workers are left");
    }
}

/// A `GET`, whose path may have a query.
pub fn get(name: &str, path: &str) -> InvokeRequest {
    InvokeRequest { function_id: name.into(), path: Some(path.into()), ..InvokeRequest::default() }
}

/// The body of an answer as JSON.
pub fn json(answer: &InvokeResponse) -> serde_json::Value {
    serde_json::from_slice(&answer.body.0).unwrap_or_else(|error| panic!("{error}: {answer:?} {}", text(answer)))
}

/// Returns the daemon's refusal; any other failure of a request fails the test.
pub fn refused(error: ClientError) -> Error {
    match error {
        ClientError::Refused(error) => error,
        other => panic!("the daemon should have answered: {other}"),
    }
}

/// The body of an answer as text.
pub fn text(answer: &InvokeResponse) -> &str {
    std::str::from_utf8(&answer.body.0).expect("the body is text")
}

/// Whether an outcome is a refusal with this code.
pub fn is_refused<T>(outcome: &Result<T, Error>, code: ErrorCode) -> bool {
    outcome.as_ref().is_err_and(|error| error.code == code)
}
