//! Session of a command: its output, its configuration and its connection to the daemon.

use super::error::CliError;
use super::print::Out;
use crate::client::{Client, ClientError};
use crate::config::{self, Effective};
use crate::protocol::ipc::CommandRequest;
use crate::protocol::page::{PAGE_MAX, Page, Paged};
use clap::Args;
use std::path::PathBuf;

/// The daemon's configuration reads this variable too.
const SOCKET_VARIABLE: &str = "LEVAIN_SOCKET";

/// Options of every command.
#[derive(Debug, Default, Args)]
pub(super) struct Global {
    /// The daemon's socket [env: LEVAIN_SOCKET] [default: from the configuration]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub(super) socket: Option<PathBuf>,
    /// Print answers as JSON, one line each
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// The configuration file [default: ./config.toml if it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(super) config: Option<PathBuf>,
}

/// Configuration keys that options of a command set, with their values.
pub(super) type Flags = Vec<(&'static str, String)>;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) out: Out,
    pub(super) global: Global,
}

impl Session {
    pub(super) fn new(global: Global) -> Self {
        Self { out: Out { is_json: global.json }, global }
    }

    /// The options that are given, `--socket` among them, as configuration keys.
    pub(super) fn flags<const N: usize>(&self, options: [(&'static str, Option<String>); N]) -> Flags {
        let socket = self.global.socket.as_ref().map(|it| it.display().to_string());
        let options = options.into_iter().chain([("daemon.socket", socket)]);
        options.filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// Loads the configuration, in which these flags override the file and the variables.
    pub(super) fn configuration(&self, flags: &Flags) -> Result<Effective, CliError> {
        config::load(self.global.config.as_deref(), flags).map_err(|error| CliError::usage(error.to_string()))
    }

    /// The daemon's socket: from an argument or a variable, otherwise from the configuration. The configuration is read
    /// only in the last case, so that a wrong file does not keep a client from a running daemon.
    pub(super) fn socket(&self) -> Result<PathBuf, CliError> {
        let variable = || std::env::var_os(SOCKET_VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from);
        match self.global.socket.clone().or_else(variable) {
            Some(socket) => Ok(socket),
            None => Ok(self.configuration(&Flags::new())?.config.socket_path()),
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

    /// Sends one request and prints its answer, as `text` makes it.
    pub(super) async fn print<R: CommandRequest>(
        &self,
        request: &R,
        text: impl FnOnce(&R::Response) -> String,
    ) -> Result<(), CliError> {
        self.out.response(&self.call(request).await?, text)
    }

    /// Reads up to `limit` rows of a list, or all, and prints them.
    pub(super) async fn print_list<R: Paged>(
        &self,
        request: R,
        limit: Option<u32>,
        text: impl FnOnce(&R::Response) -> String,
    ) -> Result<(), CliError> {
        self.out.response(&self.list(request, limit).await?, text)
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
