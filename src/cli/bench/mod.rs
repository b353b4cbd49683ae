//! Load generator: closed loops of invocations through the client, and their measurements.
//!
//! Every loop sends its next invocation after the last one has ended, so the load follows the daemon: a slow daemon
//! gets fewer invocations, and the percentiles do not describe a fixed rate of arrivals.

mod report;

use super::arguments::parse_seconds;
use super::error::CliError;
use super::request::RequestArgs;
use super::session::Session;
use crate::client::{Client, ClientError};
use crate::error::ErrorCode;
use crate::model::ColdStart;
use crate::protocol::message::InvokeRequest;
use clap::Args;
use report::{Report, Tally};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time between updates of the progress line.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Pause of a loop after a refused invocation, so that it does not spin.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

const EXAMPLES: &str = "Examples:
  levain bench hello
  levain bench hello --connections 16 --duration 30
  levain bench echo --requests 10000 --in-flight 8 --data x --json";

/// `levain bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bench {
    #[command(flatten)]
    request: RequestArgs,
    /// Number of connections
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Concurrent calls on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Duration in seconds [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, conflicts_with = "requests")]
    duration: Option<Duration>,
    /// Total number of calls, instead of a duration
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
}

/// State shared by all loops.
#[derive(Debug)]
struct Load {
    request: InvokeRequest,
    /// Invocations that may still begin.
    remaining: AtomicU64,
    /// Invocations that have ended.
    done: AtomicU64,
    stop: CancellationToken,
}

impl Bench {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let load = Arc::new(Load {
            request: self.request.request()?,
            remaining: AtomicU64::new(self.requests.unwrap_or(u64::MAX)),
            done: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(session.client().await?);
        }
        let began = Instant::now();
        let mut loops = JoinSet::new();
        for client in clients {
            for _ in 0..self.in_flight {
                loops.spawn(one_loop(client.clone(), Arc::clone(&load)));
            }
        }
        let duration =
            if self.requests.is_some() { None } else { Some(self.duration.unwrap_or(Duration::from_secs(10))) };
        let mut total = Tally::default();
        let mut failure = None;
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        let mut end = pin!(tokio::time::sleep(duration.unwrap_or(Duration::MAX)));
        let mut interrupts = signal(SignalKind::interrupt()).map_err(CliError::System)?;
        loop {
            tokio::select! {
                ended = loops.join_next() => match ended {
                    Some(Ok((tally, error))) => {
                        total.add(&tally);
                        failure = failure.or(error);
                    }
                    Some(Err(panic)) => return Err(CliError::System(panic.into())),
                    None => break,
                },
                () = &mut end, if !load.stop.is_cancelled() => load.stop.cancel(),
                _ = interrupts.recv() => {
                    // A second Ctrl-C does not wait for running invocations.
                    if load.stop.is_cancelled() {
                        return Err(CliError::failed(ErrorCode::Cancelled, "interrupted"));
                    }
                    load.stop.cancel();
                }
                _ = progress.tick() => session.out.progress(&load.progress(began.elapsed())),
            }
        }
        session.out.progress("");
        if !total.is_empty() {
            let report = Report::new(&total, began.elapsed(), self.connections, self.in_flight);
            session.out.response(&report, Report::text)?;
        }
        match (failure, total.only_failures()) {
            (Some(error), _) => Err(error.into()),
            (None, Some(code)) => Err(CliError::Function(code)),
            (None, None) => Ok(()),
        }
    }
}

impl Load {
    fn takes_one(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        !self.stop.is_cancelled() && self.remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn progress(&self, elapsed: Duration) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
        format!("{:.0} s, {done} calls, {rate:.0} a second (Ctrl-C stops)", elapsed.as_secs_f64())
    }
}

/// Invokes the function until the load is used up. An invocation that runs when the load stops is waited for, so that
/// every one that was sent counts. Ends early, with the reason, when the connection has ended or the request can never
/// succeed.
async fn one_loop(client: Client, load: Arc<Load>) -> (Tally, Option<ClientError>) {
    let mut tally = Tally::default();
    while load.takes_one() {
        let sent = Instant::now();
        match client.call(&load.request).await {
            Ok(response) if response.success => {
                tally.answer(sent.elapsed(), response.status, response.cold_start != ColdStart::None);
            }
            Ok(response) => tally.error(response.code.unwrap_or(ErrorCode::Internal)),
            Err(ClientError::Refused(error)) => match error.code {
                ErrorCode::Overloaded | ErrorCode::WorkerUnavailable => {
                    tally.error(error.code);
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                _ => return (tally, Some(ClientError::Refused(error))),
            },
            Err(error) => return (tally, Some(error)),
        }
        load.done.fetch_add(1, Ordering::Relaxed);
    }
    (tally, None)
}
