//! Ctrl-C during a command that the daemon can cancel until it commits.
//!
//! The first Ctrl-C cancels the command and waits for the daemon's answer, because the cancellation may come too late.
//! The second one, or the end of the wait, exits without that answer; the daemon then cancels what has not committed.

use super::error::CliError;
use super::print::Out;
use super::session::Session;
use crate::client::Client;
use crate::error::ErrorCode;
use crate::protocol::ipc::CommandRequest;
use crate::protocol::message::DeployProgress;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Time for the daemon to answer a cancelled command, because it first ends processes and removes files.
const PATIENCE: Duration = Duration::from_secs(5);

/// Receiver of Ctrl-C, from its creation on.
#[derive(Debug)]
pub(super) struct Interrupts {
    signal: Signal,
    /// End of the wait for the daemon's answer to the first Ctrl-C.
    deadline: Option<Instant>,
}

/// Answer to a command that can be cancelled.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) response: T,
    /// Whether Ctrl-C came too late to cancel the command.
    pub(super) was_interrupted: bool,
}

impl Interrupts {
    pub(super) fn listen() -> Result<Self, CliError> {
        let signal = signal(SignalKind::interrupt()).map_err(CliError::System)?;
        Ok(Self { signal, deadline: None })
    }

    /// Sends a request and waits for its answer; lines of a build's output go to `tell`.
    pub(super) async fn call<R: CommandRequest>(
        &mut self,
        client: &Client,
        request: &R,
        out: &Out,
        tell: impl Fn(&str),
    ) -> Result<Done<R::Response>, CliError> {
        if self.deadline.is_some() {
            return Err(interrupted("interrupted before the request was sent"));
        }
        let mut answer = client.call_streaming(request)?;
        loop {
            let deadline = self.deadline;
            tokio::select! {
                part = answer.next_partial::<DeployProgress>() => match part? {
                    Some(DeployProgress { line }) => tell(&line),
                    None => break,
                },
                _ = self.signal.recv() => {
                    if deadline.is_some() {
                        return Err(unknown());
                    }
                    answer.cancel()?;
                    out.progress_line("cancelling …");
                    self.deadline = Some(Instant::now() + PATIENCE);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Err(unknown()),
            }
        }
        Ok(Done { response: answer.finish().await?, was_interrupted: self.deadline.is_some() })
    }
}

impl Session {
    /// Like [`Session::call`], for a command that Ctrl-C cancels until it commits.
    pub(super) async fn call_cancellable<R: CommandRequest>(&self, request: &R) -> Result<Done<R::Response>, CliError> {
        Interrupts::listen()?.call(&self.client().await?, request, &self.out, |_| ()).await
    }
}

fn interrupted(message: &str) -> CliError {
    CliError::failed(ErrorCode::Cancelled, message)
}

fn unknown() -> CliError {
    interrupted(
        "interrupted before the daemon answered: the command is cancelled unless it was already committed; see \
         `levain deployments`",
    )
}
