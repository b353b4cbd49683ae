//! The one task beside each worker: it reads what the worker says and notices its end.

use super::{Blueprint, Exit, KillReason, Running, Shared, SpawnLimits, lines::Lines};
use crate::{
    model::{FunctionId, InvocationId, Timestamp, VersionLabel},
    protocol::worker::{FromWorker, LogLevel},
    telemetry::{LogRecord, Logs, Stream},
};
use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{UnixStream, unix::pipe},
    sync::oneshot,
};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// What is read of each stream after the process has ended.
const REMAINDER_BYTES_MAX: usize = 256 * 1024;

/// JSON may write one byte of a message as six.
const JSON_ESCAPE_FACTOR: usize = 6;

/// Room in a control line for everything besides the message.
const CONTROL_OVERHEAD_BYTES: usize = 32 * 1024;

/// The daemon's ends of what a worker writes on.
pub(super) struct Streams {
    pub(super) control: Arc<UnixStream>,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

/// Reads one worker's output for as long as it lives.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    logs: Arc<Logs>,
    function_id: FunctionId,
    version: VersionLabel,
    rate: Rate,
    /// Taken by the first `ready`.
    ready: Option<oneshot::Sender<()>>,
    control: Lines,
    stdout: Lines,
    stderr: Lines,
}

impl Supervisor {
    pub(super) fn new(
        shared: Arc<Shared>,
        logs: Arc<Logs>,
        blueprint: &Blueprint,
        limits: &SpawnLimits,
        ready: oneshot::Sender<()>,
    ) -> Self {
        let control_bytes_max = limits.line_bytes_max * JSON_ESCAPE_FACTOR + CONTROL_OVERHEAD_BYTES;
        Self {
            shared,
            logs,
            function_id: blueprint.function_id,
            version: blueprint.version.clone(),
            rate: Rate::new(limits.lines_per_second_max),
            ready: Some(ready),
            control: Lines::new(control_bytes_max),
            stdout: Lines::new(limits.line_bytes_max),
            stderr: Lines::new(limits.line_bytes_max),
        }
    }

    /// Reads until the process has ended, then reports its exit.
    pub(super) async fn run(mut self, streams: Streams) {
        let mut open = [true; 3];
        let status = loop {
            tokio::select! {
                status = self.shared.process.wait() => break status,
                _ = streams.control.readable(), if open[0] => open[0] = self.read_control(&streams, READ_BYTES),
                _ = streams.stdout.readable(), if open[1] => open[1] = self.read_stdout(&streams, READ_BYTES),
                _ = streams.stderr.readable(), if open[2] => open[2] = self.read_stderr(&streams, READ_BYTES),
            }
        };
        let status = status.unwrap_or_else(|error| {
            tracing::error!(pid = self.shared.process.pid(), %error, "cannot wait for a worker");
            self.shared.process.kill_tree();
            ExitStatus::from_raw(nix::libc::SIGKILL)
        });
        self.read_control(&streams, REMAINDER_BYTES_MAX);
        self.read_stdout(&streams, REMAINDER_BYTES_MAX);
        self.read_stderr(&streams, REMAINDER_BYTES_MAX);
        self.report_exit(status);
    }

    fn report_exit(&mut self, status: ExitStatus) {
        self.finish_lines();
        self.report_dropped();
        let reason = self.shared.kill_reason.get().copied();
        let exit = Exit { status, reason, last_words: self.shared.last_words() };
        tracing::debug!(pid = self.shared.process.pid(), ?reason, "a worker has ended: {exit}");
        if reason != Some(KillReason::Stop) {
            let message = match reason {
                Some(KillReason::Deadline) => "the worker was ended because its invocation took too long".to_owned(),
                _ => format!("the worker has ended: {exit}"),
            };
            self.push(Stream::System, LogLevel::Error, self.shared.only_running(), message);
        }
        self.shared.exit.send_replace(Some(exit));
        // Whoever waits for an invocation to settle has waited long enough.
        self.shared.running.lock().clear();
    }

    /// Returns whether there may be more to read, as do its two siblings below.
    fn read_control(&mut self, streams: &Streams, bytes_max: usize) -> bool {
        let mut lines = std::mem::replace(&mut self.control, Lines::new(0));
        let open = read(
            bytes_max,
            |buffer| streams.control.try_read(buffer),
            |bytes| {
                lines.push(bytes, |line| self.on_message(line));
            },
        );
        self.control = lines;
        open
    }

    fn read_stdout(&mut self, streams: &Streams, bytes_max: usize) -> bool {
        let mut lines = std::mem::replace(&mut self.stdout, Lines::new(0));
        let open = read(
            bytes_max,
            |buffer| streams.stdout.try_read(buffer),
            |bytes| {
                lines.push(bytes, |line| self.on_output(Stream::Stdout, LogLevel::Info, line));
            },
        );
        self.stdout = lines;
        open
    }

    fn read_stderr(&mut self, streams: &Streams, bytes_max: usize) -> bool {
        let mut lines = std::mem::replace(&mut self.stderr, Lines::new(0));
        let open = read(
            bytes_max,
            |buffer| streams.stderr.try_read(buffer),
            |bytes| {
                lines.push(bytes, |line| self.on_output(Stream::Stderr, LogLevel::Warn, line));
            },
        );
        self.stderr = lines;
        open
    }

    fn finish_lines(&mut self) {
        let mut stdout = std::mem::replace(&mut self.stdout, Lines::new(0));
        stdout.finish(|line| self.on_output(Stream::Stdout, LogLevel::Info, line));
        let mut stderr = std::mem::replace(&mut self.stderr, Lines::new(0));
        stderr.finish(|line| self.on_output(Stream::Stderr, LogLevel::Warn, line));
    }

    fn on_output(&mut self, stream: Stream, level: LogLevel, line: &[u8]) {
        let message = String::from_utf8_lossy(line).into_owned();
        self.shared.say_last(&message);
        self.log(stream, level, self.shared.only_running(), message);
    }

    fn on_message(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(FromWorker::Ready { .. }) => {
                if let Some(ready) = self.ready.take() {
                    let _ = ready.send(());
                }
            }
            Ok(FromWorker::Log { level, invocation, message, dropped }) => {
                self.rate.dropped += dropped.unwrap_or(0);
                if level >= LogLevel::Warn {
                    self.shared.say_last(&message);
                }
                let invocation = self.shared.known(invocation);
                self.log(Stream::Console, level, invocation, message);
            }
            Ok(FromWorker::Rejection { invocation, message, stack, guessed: _ }) => {
                let text = format!("unhandled: {}", stack.unwrap_or(message));
                self.shared.say_last(&text);
                let invocation = self.shared.known(invocation);
                self.log(Stream::System, LogLevel::Error, invocation, text);
            }
            Ok(FromWorker::Settled { invocation }) => {
                if let Ok(invocation) = invocation.parse() {
                    self.shared.settle(invocation);
                }
            }
            Err(error) => {
                let message = format!("the worker wrote a line on its control channel that is no message: {error}");
                self.log(Stream::System, LogLevel::Warn, None, message);
            }
        }
    }

    /// Keeps a line, unless the worker is over its rate.
    fn log(&mut self, stream: Stream, level: LogLevel, invocation: Option<InvocationId>, message: String) {
        match self.rate.admit(Instant::now()) {
            Admission::Keep => self.push(stream, level, invocation, message),
            Admission::KeepAfterReport => {
                self.report_dropped();
                self.push(stream, level, invocation, message);
            }
            Admission::Drop => {}
        }
    }

    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.rate.dropped);
        if dropped > 0 {
            self.logs.count_dropped(self.function_id, &self.version, dropped);
        }
    }

    fn push(&self, stream: Stream, level: LogLevel, invocation: Option<InvocationId>, message: String) {
        self.logs.push(LogRecord {
            at: Timestamp::now(),
            function_id: self.function_id,
            version: self.version.clone(),
            invocation,
            worker: self.shared.process.pid(),
            stream,
            level,
            message,
        });
    }
}

impl Shared {
    /// The named invocation, if this worker runs it or has just run it: a worker speaks for its own only.
    fn known(&self, invocation: Option<String>) -> Option<InvocationId> {
        let invocation = invocation?.parse().ok()?;
        let is_own = self.running.lock().contains_key(&invocation) || self.ended.lock().contains(&invocation);
        is_own.then_some(invocation)
    }

    /// The invocation that raw output belongs to, which is known when there is just one.
    fn only_running(&self) -> Option<InvocationId> {
        let running = self.running.lock();
        let mut ids = running.keys();
        ids.next().copied().filter(|_| ids.next().is_none())
    }

    fn settle(&self, invocation: InvocationId) {
        let mut running = self.running.lock();
        if let Some(state) = running.get_mut(&invocation)
            && let Running::Awaited(waiting) = std::mem::replace(state, Running::Settled)
        {
            let _ = waiting.send(());
        }
    }
}

/// Reads what is there, at most `bytes_max`. False when the stream has ended.
fn read(
    bytes_max: usize,
    mut try_read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut take: impl FnMut(&[u8]),
) -> bool {
    // Made anew at each read: a worker that says nothing holds no buffer.
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0;
    while total < bytes_max {
        match try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                take(&buffer[..count]);
                total += count;
            }
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Counts lines in windows of a second.
struct Rate {
    max: u32,
    since: Instant,
    kept: u32,
    dropped: u64,
}

enum Admission {
    Keep,
    /// A new window has begun and the last one dropped lines.
    KeepAfterReport,
    Drop,
}

impl Rate {
    fn new(max: u32) -> Self {
        Self { max, since: Instant::now(), kept: 0, dropped: 0 }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.kept) = (now, 1);
            return if self.dropped > 0 { Admission::KeepAfterReport } else { Admission::Keep };
        }
        if self.kept < self.max {
            self.kept += 1;
            return Admission::Keep;
        }
        self.dropped += 1;
        Admission::Drop
    }
}
