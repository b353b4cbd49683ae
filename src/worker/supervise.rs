//! The one task beside each worker: it reads what the worker says and notices its end.

use super::{Exit, KillReason, Shared, SpawnLimits, lines::Lines};
use crate::{
    model::{InvocationId, Timestamp},
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
    voice: Voice,
    streams: Streams,
    control: Input,
    stdout: Input,
    stderr: Input,
}

/// How far a stream was read.
struct Input {
    lines: Lines,
    /// Whether there may be more.
    open: bool,
}

/// What the worker says, on its way into the log.
struct Voice {
    shared: Arc<Shared>,
    logs: Arc<Logs>,
    rate: Rate,
    /// Taken by the first `ready`.
    ready: Option<oneshot::Sender<()>>,
}

impl Supervisor {
    pub(super) fn new(
        shared: Arc<Shared>,
        logs: Arc<Logs>,
        limits: &SpawnLimits,
        streams: Streams,
        ready: oneshot::Sender<()>,
    ) -> Self {
        let control_bytes_max = limits.line_bytes_max * JSON_ESCAPE_FACTOR + CONTROL_OVERHEAD_BYTES;
        let rate = Rate::new(limits.lines_per_second_max);
        Self {
            voice: Voice { shared, logs, rate, ready: Some(ready) },
            streams,
            control: Input::new(control_bytes_max),
            stdout: Input::new(limits.line_bytes_max),
            stderr: Input::new(limits.line_bytes_max),
        }
    }

    /// Reads until the process has ended, then reports its exit.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.voice.shared);
        let status = loop {
            tokio::select! {
                status = shared.process.wait() => break status,
                _ = self.streams.control.readable(), if self.control.open => self.read_control(READ_BYTES),
                _ = self.streams.stdout.readable(), if self.stdout.open => self.read_stdout(READ_BYTES),
                _ = self.streams.stderr.readable(), if self.stderr.open => self.read_stderr(READ_BYTES),
            }
        };
        let status = status.unwrap_or_else(|error| {
            tracing::error!(pid = shared.process.pid(), %error, "cannot wait for a worker");
            shared.process.kill_tree();
            ExitStatus::from_raw(nix::libc::SIGKILL)
        });
        self.read_control(REMAINDER_BYTES_MAX);
        self.read_stdout(REMAINDER_BYTES_MAX);
        self.read_stderr(REMAINDER_BYTES_MAX);
        let voice = &mut self.voice;
        self.stdout.lines.finish(|line| voice.on_output(Stream::Stdout, LogLevel::Info, line));
        self.stderr.lines.finish(|line| voice.on_output(Stream::Stderr, LogLevel::Warn, line));
        voice.report_exit(status);
    }

    fn read_control(&mut self, bytes_max: usize) {
        let Self { voice, streams, control, .. } = self;
        control.read(bytes_max, |buffer| streams.control.try_read(buffer), |line| voice.on_message(line));
    }

    fn read_stdout(&mut self, bytes_max: usize) {
        let Self { voice, streams, stdout, .. } = self;
        let take = |line: &[u8]| voice.on_output(Stream::Stdout, LogLevel::Info, line);
        stdout.read(bytes_max, |buffer| streams.stdout.try_read(buffer), take);
    }

    fn read_stderr(&mut self, bytes_max: usize) {
        let Self { voice, streams, stderr, .. } = self;
        let take = |line: &[u8]| voice.on_output(Stream::Stderr, LogLevel::Warn, line);
        stderr.read(bytes_max, |buffer| streams.stderr.try_read(buffer), take);
    }
}

impl Input {
    fn new(line_bytes_max: usize) -> Self {
        Self { lines: Lines::new(line_bytes_max), open: true }
    }

    /// Reads what is there, about `bytes_max` at most, and takes its lines.
    fn read(
        &mut self,
        bytes_max: usize,
        mut try_read: impl FnMut(&mut [u8]) -> io::Result<usize>,
        mut take: impl FnMut(&[u8]),
    ) {
        // Made anew at each read: a worker that says nothing holds no buffer.
        let mut buffer = vec![0; READ_BYTES];
        let mut total = 0;
        while self.open && total < bytes_max {
            match try_read(&mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => {
                    self.lines.push(&buffer[..count], &mut take);
                    total += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.open = false,
            }
        }
    }
}

impl Voice {
    fn report_exit(&mut self, status: ExitStatus) {
        self.report_dropped();
        let shared = Arc::clone(&self.shared);
        let reason = shared.end_reason(status);
        let exit = Exit { status, reason, last_words: shared.last_words() };
        tracing::debug!(pid = shared.process.pid(), ?reason, "a worker has ended: {exit}");
        if reason != Some(KillReason::Stop) {
            let message = match reason {
                Some(KillReason::Deadline) => "the worker was ended because its invocation took too long".to_owned(),
                _ => format!("the worker has ended: {exit}"),
            };
            self.push(Stream::System, LogLevel::Error, shared.calls.writer(), message);
        }
        shared.exit.send_replace(Some(exit));
        shared.calls.clear();
    }

    fn on_output(&mut self, stream: Stream, level: LogLevel, line: &[u8]) {
        let message = String::from_utf8_lossy(line).into_owned();
        self.shared.say_last(&message);
        self.log(stream, level, self.shared.calls.writer(), message);
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
                let invocation = self.shared.calls.known(invocation.as_deref());
                self.log(Stream::Console, level, invocation, message);
            }
            Ok(FromWorker::Rejection { invocation, message, stack, guessed }) => {
                let how = if guessed { "unhandled, probably of this invocation" } else { "unhandled" };
                let text = format!("{how}: {}", stack.unwrap_or(message));
                self.shared.say_last(&text);
                let invocation = self.shared.calls.known(invocation.as_deref());
                self.log(Stream::System, LogLevel::Error, invocation, text);
            }
            Ok(FromWorker::Settled { invocation }) => {
                if let Ok(invocation) = invocation.parse() {
                    self.shared.calls.settle(invocation);
                }
            }
            Ok(FromWorker::Pong { number }) => self.shared.ping.answer(number),
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
        if dropped > 0
            && let Some(owner) = self.shared.owner.get()
        {
            self.logs.count_dropped(owner.function_id, &owner.version, dropped);
        }
    }

    fn push(&self, stream: Stream, level: LogLevel, invocation: Option<InvocationId>, message: String) {
        let worker = self.shared.process.pid();
        let Some(owner) = self.shared.owner.get() else {
            return tracing::warn!(worker, "a worker without a function says: {message}");
        };
        self.logs.push(LogRecord {
            at: Timestamp::now(),
            function_id: owner.function_id,
            version: owner.version.clone(),
            invocation,
            worker,
            stream,
            level,
            message,
        });
    }
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
