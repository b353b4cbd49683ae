//! Stop: ends the daemon of this socket, and waits until it is gone.
//!
//! The daemon gets SIGTERM, as from a service manager. Its process is the one that listens on the socket, by the
//! kernel's word (`SO_PEERCRED`), and is held by a descriptor, so that no other process can get the signal.

use super::arguments::parse_span;
use super::error::CliError;
use super::print::{GREEN, styled};
use super::session::Session;
use crate::client::{Client, ClientError};
use crate::error::ErrorCode;
use crate::protocol::message::StatusRequest;
use crate::socket::ShortPath;
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::net::UnixStream;

/// `levain stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  levain stop\n  levain stop --timeout 2m

Running calls may finish first, within daemon.shutdown_grace_ms. A service manager that restarts the daemon must be \
told instead: systemctl stop levain.")]
pub(super) struct Stop {
    /// Longest wait until the daemon is gone, such as 30s or 2m
    #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "60s")]
    timeout: u32,
}

impl Stop {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let socket = session.socket()?;
        let client = Client::connect(&socket).await?;
        let listener = listener(&socket).await?;
        let daemon = Pid::from_raw(listener).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // The answer comes after the descriptor was opened: that process is still the daemon.
        let status = client.call(&StatusRequest {}).await?;
        let Some(daemon) = daemon.filter(|_| i64::from(status.pid) == i64::from(listener)) else {
            let message = format!(
                "the daemon at {} calls itself process {}, which is another process here: stop it in its container",
                socket.display(),
                status.pid
            );
            return Err(CliError::failed(ErrorCode::Conflict, message));
        };
        pidfd_send_signal(&daemon, Signal::TERM).map_err(|error| CliError::System(error.into()))?;
        session.out.progress("waiting for running calls and workers to end …");
        let is_gone = tokio::task::spawn_blocking(move || ends_within(&daemon, self.timeout)).await;
        session.out.progress("");
        if !is_gone.unwrap_or(false) {
            let message = format!("the daemon (process {}) still runs after {} s", status.pid, self.timeout);
            return Err(CliError::failed(ErrorCode::Timeout, message));
        }
        let stopped = serde_json::json!({ "stopped": true, "pid": status.pid, "data_dir": status.data_dir });
        session.out.response(&stopped, |_| {
            let data_dir = &status.data_dir;
            format!("{} the daemon of {data_dir} has stopped (process {})", styled(GREEN, "ok"), status.pid)
        })
    }
}

/// Process that listens on the socket; 0 if it is outside of this process namespace.
async fn listener(socket: &Path) -> Result<i32, CliError> {
    let at = |source| ClientError::Connect { socket: socket.to_owned(), source };
    let short = ShortPath::new(socket).map_err(at)?;
    let peer = UnixStream::connect(short.as_path()).await.and_then(|it| it.peer_cred()).map_err(at)?;
    Ok(peer.pid().unwrap_or(0))
}

/// Waits for the end of a process.
fn ends_within(process: &OwnedFd, seconds: u32) -> bool {
    let timeout = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
