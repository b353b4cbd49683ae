//! A daemon inside the test's process, on a data directory of its own.

use super::{bun, samples, workers_of};
use levain::{
    client::{Client, ClientError},
    config::Config,
    daemon::Daemon,
    error::{Error, ErrorCode},
    protocol::{
        field::Body,
        message::{DeployRequest, DeployResponse, InvokeRequest, InvokeResponse, RegisterRequest},
    },
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A running daemon and a client of it.
pub struct TestDaemon {
    daemon: Option<Daemon>,
    client: Client,
    data: TempDir,
}

impl TestDaemon {
    /// Starts one with the default configuration.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts one whose configuration is changed first.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.daemon.data_dir = data.path().to_str().unwrap().into();
        config.runtime.bun = bun().await.to_str().unwrap().into();
        change(&mut config);
        let daemon = Daemon::start(config).await.expect("the daemon starts");
        let client = Client::connect(daemon.socket()).await.expect("the daemon answers");
        Self { daemon: Some(daemon), client, data }
    }

    /// The client that all helpers below use.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Another connection.
    pub async fn connect(&self) -> Client {
        Client::connect(self.socket()).await.expect("the daemon answers")
    }

    pub fn socket(&self) -> PathBuf {
        self.daemon.as_ref().unwrap().socket().to_owned()
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

    /// Stops the daemon and checks that it leaves no process and no socket behind.
    pub async fn stop(mut self) {
        let socket = self.socket();
        self.daemon.take().unwrap().shutdown().await;
        assert!(!socket.exists(), "the socket file is left");
        assert_eq!(workers_of(self.data.path()), [] as [u32; 0], "workers are left");
    }
}

/// The daemon's refusal; anything else that can go wrong with a call fails the test.
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
