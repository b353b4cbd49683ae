//! The supervising task of each worker: reads the worker's output and notices its end. [`super::violation`] has the rules
//! for the output, and for breaches of them.

use super::{
    blueprint::SpawnLimits,
    control::{ControlLimits, ControlMessage},
    exit::{Exit, KillReason},
    inner::{Owner, WorkerInner},
    last_words::LineOrigin,
    lines::Lines,
    output_pipe::OutputPipe,
    read_pace::ReadPace,
    violation::Violation,
};
use crate::{
    model::{InvocationId, Timestamp},
    protocol::worker::LogLevel,
    telemetry::{LogRecord, Logs, Stream},
};
use std::{
    future, io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::UnixStream, sync::oneshot, time::sleep_until};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Maximum bytes read of each stream after the process has ended.
const REMAINDER_BYTES_MAX: usize = 256 * 1024;

/// The daemon's ends of the channels that a worker writes to.
pub(super) struct Streams {
    pub(super) control: Arc<UnixStream>,
    pub(super) stdout: OutputPipe,
    pub(super) stderr: OutputPipe,
}

/// Reads one worker's output for as long as it lives.
pub(super) struct Supervisor {
    handler: OutputHandler,
    streams: Streams,
    control: InputStream,
    stdout: InputStream,
    stderr: InputStream,
}

/// Reading state of one stream.
struct InputStream {
    lines: Lines,
    /// Whether the stream may have more data.
    open: bool,
    pace: ReadPace,
}

/// Path of the worker's messages into the log.
struct OutputHandler {
    shared: Arc<WorkerInner>,
    logs: Arc<Logs>,
    rate: Rate,
    /// Taken by the first `ready`.
    ready: Option<oneshot::Sender<()>>,
    bounds: ControlLimits,
    /// Bytes to which a line of output is cut.
    output_bytes_max: usize,
    /// The worker has broken the protocol: further lines on its control channel are ignored.
    is_rogue: bool,
}

impl Supervisor {
    pub(super) fn new(
        shared: Arc<WorkerInner>,
        logs: Arc<Logs>,
        limits: &SpawnLimits,
        streams: Streams,
        ready: oneshot::Sender<()>,
    ) -> Self {
        let (rate, bounds) = (Rate::new(limits.lines_per_second_max), ControlLimits::new(limits.line_bytes_max));
        let output_bytes_max = limits.line_bytes_max;
        let handler =
            OutputHandler { shared, logs, rate, ready: Some(ready), bounds, output_bytes_max, is_rogue: false };
        let input = |line_bytes_max| InputStream::new(line_bytes_max, limits.lines_per_second_max);
        let (control, stdout, stderr) =
            (input(bounds.line_bytes_max), input(limits.line_bytes_max), input(limits.line_bytes_max));
        Self { handler, streams, control, stdout, stderr }
    }

    /// Reads until the process has ended, then reports its exit.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.handler.shared);
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
        self.drain();
        let handler = &mut self.handler;
        self.stdout.lines.finish(|line| handler.on_output(Stream::Stdout, LogLevel::Info, line));
        self.stderr.lines.finish(|line| handler.on_output(Stream::Stderr, LogLevel::Warn, line));
        handler.report_exit(status);
    }

    /// Reads the remaining output once the process has ended, because its last lines belong in the report of its end.
    /// The descriptors are read directly, because the runtime may not have been notified of their data yet.
    fn drain(&mut self) {
        let Self { handler, streams, control, stdout, stderr } = self;
        let read = |buffer: &mut [u8]| Ok(nix::unistd::read(&*streams.control, buffer)?);
        control.read(REMAINDER_BYTES_MAX, read, |line| handler.on_control_line(line));
        let read = |buffer: &mut [u8]| streams.stdout.read(buffer);
        stdout.read(REMAINDER_BYTES_MAX, read, |line| handler.on_output(Stream::Stdout, LogLevel::Info, line));
        let read = |buffer: &mut [u8]| streams.stderr.read(buffer);
        stderr.read(REMAINDER_BYTES_MAX, read, |line| handler.on_output(Stream::Stderr, LogLevel::Warn, line));
    }

    fn resume(&mut self) {
        let now = Instant::now();
        self.control.pace.resume(now);
        for (input, tap) in [(&mut self.stdout, &mut self.streams.stdout), (&mut self.stderr, &mut self.streams.stderr)]
        {
            input.pace.resume(now);
            if input.is_read() {
                tap.open();
            }
        }
    }

    fn read_control(&mut self, bytes_max: usize) {
        let Self { handler, streams, control, .. } = self;
        control.read(bytes_max, |buffer| streams.control.try_read(buffer), |line| handler.on_control_line(line));
        control.open &= !handler.is_rogue;
    }

    fn read_stdout(&mut self, bytes_max: usize) {
        let Self { handler, streams, stdout, .. } = self;
        let take = |line: &[u8]| handler.on_output(Stream::Stdout, LogLevel::Info, line);
        stdout.read(bytes_max, |buffer| streams.stdout.try_read(buffer), take);
        if !stdout.is_read() {
            streams.stdout.shut();
        }
    }

    fn read_stderr(&mut self, bytes_max: usize) {
        let Self { handler, streams, stderr, .. } = self;
        let take = |line: &[u8]| handler.on_output(Stream::Stderr, LogLevel::Warn, line);
        stderr.read(bytes_max, |buffer| streams.stderr.try_read(buffer), take);
        if !stderr.is_read() {
            streams.stderr.shut();
        }
    }
}

/// Waits until `moment`, or for ever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => future::pending().await,
    }
}

impl InputStream {
    fn new(line_bytes_max: usize, lines_per_second_max: u32) -> Self {
        Self { lines: Lines::new(line_bytes_max), open: true, pace: ReadPace::new(lines_per_second_max) }
    }

    /// Whether the stream is read at present.
    fn is_read(&self) -> bool {
        self.open && self.pace.paused_until().is_none()
    }

    /// Reads the available data, about `bytes_max` at most, and passes its lines to `take`.
    fn read(
        &mut self,
        bytes_max: usize,
        mut try_read: impl FnMut(&mut [u8]) -> io::Result<usize>,
        mut take: impl FnMut(&[u8]),
    ) {
        // Allocated for each read, so that a silent worker holds no buffer.
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

impl OutputHandler {
    fn report_exit(&mut self, status: ExitStatus) {
        self.report_dropped();
        let shared = Arc::clone(&self.shared);
        let reason = shared.end_reason(status);
        let exit = Exit { status, reason, last_words: shared.last_words.of_start() };
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
            self.push(Stream::System, LogLevel::Error, shared.invocations.writer(), message);
        }
        shared.exit.send_replace(Some(exit));
        shared.invocations.clear();
    }

    fn on_output(&mut self, stream: Stream, level: LogLevel, line: &[u8]) {
        let mut message = String::from_utf8_lossy(line).into_owned();
        self.mask(&mut message, self.output_bytes_max);
        self.shared.last_words.keep(self.shared.invocations.line_origin(), &message);
        self.log(stream, level, self.shared.invocations.writer(), message);
    }

    /// Handles a line of the control channel. A breach of the protocol ends the worker.
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
        match self.bounds.parse(line, &self.shared.invocations, &self.shared.ping)? {
            ControlMessage::Ready => {
                let ready = self.ready.take().ok_or(Violation::ReadyAgain)?;
                let _ = ready.send(());
            }
            ControlMessage::Log { stream, level, invocation, is_inferred, mut text, dropped } => {
                self.mask(&mut text, self.bounds.text_bytes_max);
                self.rate.add_said(dropped.into(), Instant::now());
                let origin = match invocation.filter(|_| !is_inferred) {
                    Some(id) => LineOrigin::Invocation(id),
                    None => self.shared.invocations.line_origin(),
                };
                self.shared.last_words.keep(origin, &text);
                self.log(stream, level, invocation, text);
            }
            ControlMessage::Answer => {}
        }
        Ok(())
    }

    /// Masks the function's secrets in a line, which was cut if it has `bytes_max` bytes.
    fn mask(&self, text: &mut String, bytes_max: usize) {
        if let Some(scrubber) = self.shared.scrubber() {
            *text = scrubber.scrub_line(text, bytes_max);
        }
    }

    /// Logs a line, unless the worker is over its rate.
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
            return tracing::warn!(worker, "output of a worker without a function: {message}");
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

/// Maximum lines that a shim can drop per microsecond: it needs longer to format the text of one that it drops.
const DROPPED_PER_MICROSECOND: u64 = 1;

/// Longest silence after which a shim may report all the lines dropped meanwhile at once.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Counts lines in windows of one second.
struct Rate {
    max: u32,
    since: Instant,
    kept: u32,
    dropped: u64,
    /// Dropped lines that the worker may still report, as of `sayable_at`. Any code in the worker can send such a
    /// report, so an implausible number does not count.
    sayable: u64,
    sayable_at: Instant,
}

enum Admission {
    Keep,
    /// A new window has begun, and the last one dropped lines.
    KeepAfterReport,
    Drop,
}

impl Rate {
    fn new(max: u32) -> Self {
        let now = Instant::now();
        Self { max, since: now, kept: 0, dropped: 0, sayable: 0, sayable_at: now }
    }

    /// Counts lines that the worker reports as dropped, as far as there was time to drop so many.
    fn add_said(&mut self, lines: u64, now: Instant) {
        let time = now.duration_since(self.sayable_at).min(SILENCE_MAX);
        let most = SILENCE_MAX.as_micros() as u64 * DROPPED_PER_MICROSECOND;
        self.sayable = (self.sayable + time.as_micros() as u64 * DROPPED_PER_MICROSECOND).min(most);
        self.sayable_at = now;
        let counted = lines.min(self.sayable);
        self.sayable -= counted;
        self.dropped += counted;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_cannot_say_that_it_dropped_more_than_it_had_time_for() {
        let mut rate = Rate::new(1);
        let at = |seconds| rate.sayable_at + Duration::from_secs(seconds);
        let times = [at(1), at(1), at(1_000), at(1_001)];
        let mut counted = Vec::new();
        for (now, said) in times.into_iter().zip([3, u32::MAX, u32::MAX, u32::MAX]) {
            rate.add_said(said.into(), now);
            counted.push(rate.dropped);
        }
        assert_eq!(counted, [3, 1_000_000, 11_000_000, 12_000_000]);
    }
}
