//! Session of a command: its output and its connection to the daemon.

use super::args::Global;
use super::config;
use super::error::CliError;
use super::print::Out;
use crate::client::{Client, ClientError};
use crate::protocol::ipc::CommandRequest;
use crate::protocol::page::{PAGE_MAX, Page, Paged};
use std::path::PathBuf;

/// The daemon's configuration reads this variable too.
const SOCKET_VARIABLE: &str = "LEVAIN_SOCKET";

#[derive(Debug)]
pub(super) struct Session {
    pub(super) out: Out,
    pub(super) config: Option<PathBuf>,
    /// Path from the argument.
    pub(super) socket: Option<PathBuf>,
}

impl Session {
    pub(super) fn new(global: &Global) -> Self {
        Self { out: Out { is_json: global.json }, config: global.config.clone(), socket: global.socket.clone() }
    }

    /// The daemon's socket: from an argument or a variable, otherwise from the configuration. The configuration is read
    /// only in the last case, so that a wrong file does not keep a client from a running daemon.
    pub(super) fn socket(&self) -> Result<PathBuf, CliError> {
        let variable = || std::env::var_os(SOCKET_VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from);
        match self.socket.clone().or_else(variable) {
            Some(socket) => Ok(socket),
            None => Ok(config::socket_path(&config::load(self.config.as_deref(), &[])?)),
        }
    }

    /// Connects to the daemon.
    pub(super) async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(self.socket()?).await?)
    }

    /// Reads up to `limit` rows of a list, or all, page by page.
    pub(super) async fn list<R: Paged>(&self, request: R, limit: Option<u32>) -> Result<R::Response, CliError> {
        Ok(list(&self.client().await?, request, limit).await?)
    }

    /// Connects, sends one request and waits for its answer.
    pub(super) async fn call<R: CommandRequest>(&self, request: &R) -> Result<R::Response, CliError> {
        Ok(self.client().await?.call(request).await?)
    }
}

/// Reads up to `limit` rows of a list, or all, page by page.
pub(super) async fn list<R: Paged>(
    client: &Client,
    mut request: R,
    limit: Option<u32>,
) -> Result<R::Response, ClientError> {
    request.ask(limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX), None);
    let mut all = client.call(&request).await?;
    request.skip_nothing();
    while let Some(cursor) = all.next() {
        let left = limit.map_or(PAGE_MAX, |limit| limit.saturating_sub(u32::try_from(all.rows()).unwrap_or(u32::MAX)));
        if left == 0 {
            break;
        }
        request.ask(left.min(PAGE_MAX), Some(cursor));
        all.join(client.call(&request).await?);
    }
    Ok(all)
}
