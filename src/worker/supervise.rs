//! The one task beside each worker: it reads what the worker says and notices its end. What the worker may say, and what
//! happens if it says something else, is in [`super::conduct`].

use super::{
    Exit, KillReason, Owner, Shared, SpawnLimits,
    conduct::{Pace, Violation},
    lines::Lines,
};
use crate::{
    model::{InvocationId, Timestamp},
    protocol::worker::{FromWorker, LogLevel},
    telemetry::{LogRecord, Logs, Stream},
};
use std::{
    future, io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{UnixStream, unix::pipe},
    sync::oneshot,
    time::sleep_until,
};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// What is read of each stream after the process has ended.
const REMAINDER_BYTES_MAX: usize = 256 * 1024;

/// JSON may write one byte of a text as six.
const JSON_ESCAPE_FACTOR: usize = 6;

/// To how many bytes the shim cuts the message and the stack of an error, each.
const ERROR_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Room in a control line for everything besides its texts.
const CONTROL_OVERHEAD_BYTES: usize = 4 * 1024;

/// Room in a log line for what is said about an error besides its text.
const LOG_OVERHEAD_BYTES: usize = 64;

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
    pace: Pace,
}

/// What the worker says, on its way into the log.
struct Voice {
    shared: Arc<Shared>,
    logs: Arc<Logs>,
    rate: Rate,
    /// Taken by the first `ready`.
    ready: Option<oneshot::Sender<()>>,
    /// A control line is shorter than this.
    control_bytes_max: usize,
    /// What a worker says is cut to this many bytes; an honest one has done so before.
    log_bytes_max: usize,
    /// It has said what it must not say: nothing it says on its control channel counts any more.
    is_rogue: bool,
}

impl Supervisor {
    pub(super) fn new(
        shared: Arc<Shared>,
        logs: Arc<Logs>,
        limits: &SpawnLimits,
        streams: Streams,
        ready: oneshot::Sender<()>,
    ) -> Self {
        let texts_bytes_max = limits.line_bytes_max.max(2 * ERROR_TEXT_BYTES_MAX);
        let control_bytes_max = texts_bytes_max * JSON_ESCAPE_FACTOR + CONTROL_OVERHEAD_BYTES;
        let log_bytes_max = limits.line_bytes_max.max(ERROR_TEXT_BYTES_MAX) + LOG_OVERHEAD_BYTES;
        let rate = Rate::new(limits.lines_per_second_max);
        let voice = Voice { shared, logs, rate, ready: Some(ready), control_bytes_max, log_bytes_max, is_rogue: false };
        let input = |line_bytes_max| Input::new(line_bytes_max, limits.lines_per_second_max);
        let (control, stdout, stderr) =
            (input(control_bytes_max), input(limits.line_bytes_max), input(limits.line_bytes_max));
        Self { voice, streams, control, stdout, stderr }
    }

    /// Reads until the process has ended, then reports its exit.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.voice.shared);
        let status = loop {
            let inputs = [&self.control, &self.stdout, &self.stderr];
            let pause = inputs.iter().filter_map(|input| input.pace.paused_until()).min();
            tokio::select! {
                status = shared.process.wait() => break status,
                _ = self.streams.control.readable(), if self.control.is_read() => self.read_control(READ_BYTES),
                _ = self.streams.stdout.readable(), if self.stdout.is_read() => self.read_stdout(READ_BYTES),
                _ = self.streams.stderr.readable(), if self.stderr.is_read() => self.read_stderr(READ_BYTES),
                () = until(pause) => self.resume(),
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

    fn resume(&mut self) {
        let now = Instant::now();
        for input in [&mut self.control, &mut self.stdout, &mut self.stderr] {
            input.pace.resume(now);
        }
    }

    fn read_control(&mut self, bytes_max: usize) {
        let Self { voice, streams, control, .. } = self;
        control.read(bytes_max, |buffer| streams.control.try_read(buffer), |line| voice.on_control_line(line));
        control.open &= !voice.is_rogue;
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

/// Waits for that moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => future::pending().await,
    }
}

impl Input {
    fn new(line_bytes_max: usize, lines_per_second_max: u32) -> Self {
        Self { lines: Lines::new(line_bytes_max), open: true, pace: Pace::new(lines_per_second_max) }
    }

    /// Whether what comes is read, now.
    fn is_read(&self) -> bool {
        self.open && self.pace.paused_until().is_none()
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
        let (mut reads, mut lines, mut total) = (0, 0, 0);
        while self.open && total < bytes_max {
            reads += 1;
            match try_read(&mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => {
                    self.lines.push(&buffer[..count], |line| {
                        lines += 1;
                        take(line);
                    });
                    total += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.open = false,
            }
        }
        self.pace.spend(reads, lines, total as u64, Instant::now());
    }
}

impl Voice {
    fn report_exit(&mut self, status: ExitStatus) {
        self.report_dropped();
        let shared = Arc::clone(&self.shared);
        let reason = shared.end_reason(status);
        let exit = Exit { status, reason, last_words: shared.last_words() };
        let pid = shared.process.pid();
        match (reason, shared.owner.get()) {
            (Some(KillReason::Protocol(_)), Some(Owner { function_id: function, version, .. })) => {
                tracing::warn!(pid, %function, %version, "a worker has ended: {exit}");
            }
            _ => tracing::debug!(pid, ?reason, "a worker has ended: {exit}"),
        }
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

    /// Takes a line of the control channel. A worker that says what it must not say is ended.
    fn on_control_line(&mut self, line: &[u8]) {
        if self.is_rogue {
            return;
        }
        if let Err(violation) = self.on_message(line) {
            self.is_rogue = true;
            self.shared.kill(KillReason::Protocol(violation));
        }
    }

    fn on_message(&mut self, line: &[u8]) -> Result<(), Violation> {
        if line.len() >= self.control_bytes_max {
            return Err(Violation::LineTooLong);
        }
        let calls = &self.shared.calls;
        match serde_json::from_slice(line).map_err(|_| Violation::NoMessage)? {
            FromWorker::Ready { .. } => {
                let ready = self.ready.take().ok_or(Violation::ReadyAgain)?;
                let _ = ready.send(());
            }
            FromWorker::Log { level, invocation, mut message, dropped } => {
                let invocation = calls.known(invocation.as_deref())?;
                self.rate.dropped += u64::from(dropped.unwrap_or(0));
                cut(&mut message, self.log_bytes_max);
                if level >= LogLevel::Warn {
                    self.shared.say_last(&message);
                }
                self.log(Stream::Console, level, invocation, message);
            }
            FromWorker::Rejection { invocation, message, stack, guessed, dropped } => {
                let invocation = calls.known(invocation.as_deref())?;
                self.rate.dropped += u64::from(dropped.unwrap_or(0));
                let how = if guessed { "unhandled, probably of this invocation" } else { "unhandled" };
                let mut text = format!("{how}: {}", stack.unwrap_or(message));
                cut(&mut text, self.log_bytes_max);
                self.shared.say_last(&text);
                self.log(Stream::System, LogLevel::Error, invocation, text);
            }
            FromWorker::Settled { invocation } => calls.settle(&invocation)?,
            FromWorker::Pong { number } => self.shared.ping.answer(number)?,
        }
        Ok(())
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

/// Cuts a text to so many bytes, between two characters.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
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
