//! The access log: one JSON object a line, written when a request has ended.
//!
//! ```text
//!   lanes ──push──▶ queue (bounded) ──▶ one thread ──▶ standard output, standard error or a file
//! ```
//!
//! Serving a request never waits for the log: a record that finds the queue full is dropped and counted. The file is
//! reopened at each reload of the configuration, so that `logrotate` can move it away first and then send SIGHUP.

use crate::{
    commands::TokenRights,
    config::HttpConfig,
    model::{InvocationId, Timestamp, Version},
    telemetry::{BatchQueue, Buffer},
};
use http::{HeaderMap, HeaderName, Method, Request, header};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::VecDeque,
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Most records that the queue holds.
const WAITING_MAX: usize = 8_192;

/// Queue length at which the thread writes at once instead of waiting for more records.
const MANY_WAITING: usize = WAITING_MAX / 2;

/// Time that a record waits for others, to be written together with them.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Time after which the thread looks for records even if nothing has woken it.
const IDLE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Time that [`AccessLog::close`] waits for a file or pipe that takes no bytes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes of a text that the client chooses; longer ones are cut.
const PATH_BYTES_MAX: usize = 2_048;
const TEXT_BYTES_MAX: usize = 512;

/// Identity of a request across services (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The access log's file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the access log {path}: {source}; set http.access_log to a file that can be written, or to off")]
pub struct AccessLogError {
    path: String,
    source: io::Error,
}

/// Facts about a request that are known from its head.
#[derive(Debug)]
pub(super) struct Head {
    at: Timestamp,
    peer: SocketAddr,
    method: Method,
    path: String,
    query: Option<String>,
    protocol: http::Version,
    user_agent: Option<String>,
    traceparent: Option<String>,
}

impl Head {
    pub(super) fn of<B>(request: &Request<B>, peer: SocketAddr, config: &HttpConfig) -> Self {
        let uri = request.uri();
        let is_wanted = config.access_log_query == crate::config::Switch::On;
        Self {
            at: Timestamp::now(),
            peer,
            method: request.method().clone(),
            path: cut(uri.path(), PATH_BYTES_MAX),
            query: uri.query().filter(|_| is_wanted).map(|it| cut(it, PATH_BYTES_MAX)),
            protocol: request.version(),
            user_agent: text(request.headers(), &header::USER_AGENT),
            traceparent: text(request.headers(), &TRACEPARENT),
        }
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(cut(&String::from_utf8_lossy(headers.get(name)?.as_bytes()), TEXT_BYTES_MAX))
}

fn cut(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

/// A request that has ended, ready to be written.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) head: Head,
    pub(super) status: Option<u16>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration: Duration,
    pub(super) is_complete: bool,
    pub(super) function: Option<Arc<str>>,
    pub(super) version: Option<Arc<Version>>,
    pub(super) invocation: Option<InvocationId>,
    pub(super) grant: Option<TokenRights>,
}

/// One line of the log; `docs/http-api.md` describes its fields.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    peer: SocketAddr,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    protocol: &'a str,
    status: Option<u16>,
    complete: bool,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<InvocationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

impl Record {
    /// Appends the record as one line. JSON escapes every character that could end the line early.
    fn write(&self, into: &mut Vec<u8>) -> serde_json::Result<()> {
        let head = &self.head;
        let line = Line {
            time: head.at,
            peer: head.peer,
            method: head.method.as_str(),
            path: &head.path,
            query: head.query.as_deref(),
            protocol: match head.protocol {
                http::Version::HTTP_2 => "HTTP/2",
                http::Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            status: self.status,
            complete: self.is_complete,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ms: self.duration.as_micros() as f64 / 1e3,
            function: self.function.as_deref(),
            version: self.version.as_ref().map(|it| it.label.as_str()),
            invocation_id: self.invocation,
            token: self.grant.as_ref().map(|it| it.token_name().as_str()),
            user_agent: head.user_agent.as_deref(),
            traceparent: head.traceparent.as_deref(),
        };
        serde_json::to_writer(&mut *into, &line)?;
        into.push(b'\n');
        Ok(())
    }
}

/// Destination of the lines.
type Sink = Box<dyn Write + Send>;

/// A switch to another sink: the number of waiting records that still go to the old one, and the new sink. Without a
/// sink the log is off.
type SinkChange = (usize, Option<Sink>);

/// Handle of the access log, which may be off.
#[derive(Debug)]
pub(super) struct AccessLog {
    shared: Arc<AccessLogInner>,
    /// Writer thread; it starts when the log is first switched on.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct AccessLogInner {
    is_on: AtomicBool,
    queue: BatchQueue<AccessBuffer>,
    /// Records that found the queue full or could not be written.
    dropped: AtomicU64,
    written: AtomicU64,
}

/// Waiting records, and the pending change of the sink, whose position counts within them.
#[derive(Default)]
struct AccessBuffer {
    waiting: VecDeque<Record>,
    next: Option<SinkChange>,
}

impl fmt::Debug for AccessBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessBuffer").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Buffer for AccessBuffer {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.next.is_none()
    }

    fn is_worth_a_batch(&self) -> bool {
        self.waiting.len() >= MANY_WAITING
    }

    fn flush_interval(&self) -> Duration {
        FLUSH_INTERVAL
    }
}

impl AccessLog {
    /// Opens a log that writes to `target`: `off`, `stdout`, `stderr`, or a path.
    pub(super) fn open(target: &str) -> Result<Self, AccessLogError> {
        let queue = BatchQueue::of(AccessBuffer::default());
        let (is_on, dropped, written) = Default::default();
        let log =
            Self { shared: Arc::new(AccessLogInner { is_on, queue, dropped, written }), thread: Mutex::default() };
        log.reopen(target)?;
        Ok(log)
    }

    /// Switches to another target. Records pushed before the switch still go to the old one.
    pub(super) fn reopen(&self, target: &str) -> Result<(), AccessLogError> {
        let fail = |source| AccessLogError { path: target.to_owned(), source };
        let sink = sink(target).map_err(fail)?;
        let is_on = sink.is_some();
        let mut thread = self.thread.lock();
        if is_on && thread.is_none() {
            let writer = LineWriter { shared: Arc::clone(&self.shared), sink: None, is_failing: false };
            let begun = thread::Builder::new().name("levain-access-log".into()).spawn(move || writer.run());
            *thread = Some(begun.map_err(fail)?);
        }
        let replaced = self.shared.queue.change(|buffer, _| buffer.next.replace((buffer.waiting.len(), sink)));
        self.shared.queue.nudge();
        self.shared.is_on.store(is_on, Relaxed);
        drop(replaced);
        Ok(())
    }

    pub(super) fn is_on(&self) -> bool {
        self.shared.is_on.load(Relaxed)
    }

    /// Queues a record, or counts it as dropped if the queue is full.
    pub(super) fn push(&self, record: Record) {
        let refused = self.shared.queue.change(|buffer, is_closed| {
            if is_closed || buffer.waiting.len() >= WAITING_MAX {
                return Some(record);
            }
            buffer.waiting.push_back(record);
            None
        });
        if refused.is_some() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Numbers of lines written and lines lost.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.shared.written.load(Relaxed), self.shared.dropped.load(Relaxed))
    }

    /// Writes the waiting records and accepts no more.
    pub(super) fn close(&self) {
        self.shared.queue.close();
        let Some(thread) = self.thread.lock().take() else { return };
        if self.shared.queue.wait_for_end(CLOSE_TIMEOUT) {
            let _ = thread.join();
        } else {
            tracing::warn!("the access log's target accepts no more bytes; its last lines are lost");
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// The writer thread.
struct LineWriter {
    shared: Arc<AccessLogInner>,
    sink: Option<Sink>,
    /// Whether the latest write failed, so that one failure is logged only once.
    is_failing: bool,
}

impl Drop for LineWriter {
    /// Runs also on a panic: no thread may wait for a writer that is gone.
    fn drop(&mut self) {
        self.shared.queue.end();
    }
}

impl LineWriter {
    /// Writes until [`AccessLog::close`].
    fn run(mut self) {
        let mut is_last = false;
        while !is_last {
            let idle_until = Instant::now() + IDLE_INTERVAL;
            let taken;
            (taken, is_last) = self.shared.queue.wait(idle_until, Duration::ZERO, std::mem::take);
            let AccessBuffer { waiting: mut records, next } = taken;
            if let Some((place, next)) = next {
                // Records that arrived while there was no sink were meant for this one.
                let behind = if self.sink.is_some() { records.split_off(place) } else { std::mem::take(&mut records) };
                self.write(&records);
                (self.sink, records) = (next, behind);
            }
            self.write(&records);
            self.shared.queue.finish();
        }
    }

    fn write(&mut self, records: &VecDeque<Record>) {
        if records.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        let is_encoded = records.iter().all(|record| record.write(&mut bytes).is_ok());
        let written = self.sink.as_mut().map(|sink| sink.write_all(&bytes).and_then(|()| sink.flush()));
        let is_written = matches!(written, Some(Ok(()))) && is_encoded;
        let count = if is_written { &self.shared.written } else { &self.shared.dropped };
        count.fetch_add(records.len() as u64, Relaxed);
        match written {
            // Reported once, until a write succeeds again.
            Some(Err(error)) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::error!(%error, "requests cannot be written to the access log");
            }
            Some(Ok(())) => self.is_failing = false,
            _ => {}
        }
    }
}

fn sink(target: &str) -> io::Result<Option<Sink>> {
    Ok(match target {
        "" | "off" => None,
        "stdout" => Some(Box::new(io::stdout())),
        "stderr" => Some(Box::new(io::stderr())),
        // Client addresses and paths must not be readable by every user of the machine.
        path => Some(Box::new(OpenOptions::new().create(true).append(true).mode(0o640).open(path)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record(path: &str) -> Record {
        let request = Request::builder()
            .uri("/x?secret=1")
            .header("user-agent", http::HeaderValue::from_bytes(b"a\"b\\c\xff\t").expect("a value"))
            .body(())
            .expect("a request");
        let config = HttpConfig::default();
        let mut head = Head::of(&request, "127.0.0.1:9".parse().expect("an address"), &config);
        head.path = cut(path, PATH_BYTES_MAX);
        Record {
            head,
            status: Some(200),
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_micros(1_500),
            is_complete: true,
            function: None,
            version: None,
            invocation: None,
            grant: None,
        }
    }

    #[test]
    fn a_line_is_json_whatever_a_client_sends() {
        let hostile = format!("/\r\n{{\"status\":200}}\u{1b}[31m\u{2028}é{}", "é".repeat(3_000));
        let mut bytes = Vec::new();
        record(&hostile).write(&mut bytes).expect("JSON");
        assert_eq!(bytes.iter().filter(|it| **it == b'\n').count(), 1);
        assert!(bytes.iter().all(|it| *it >= 0x20 || *it == b'\n'), "no control character");
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let path = value["path"].as_str().expect("a path");
        assert!(path.len() <= PATH_BYTES_MAX && hostile.starts_with(path));
        assert_eq!(value["user_agent"], "a\"b\\c\u{fffd}\t");
        assert_eq!((value["duration_ms"].as_f64(), value.get("query")), (Some(1.5), None));
    }

    #[test]
    fn lines_go_where_they_went_when_they_came() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let target = path("log").display().to_string();
        let log = AccessLog::open(&target).expect("it can be written");
        assert!(log.is_on());
        log.push(record("/first"));
        fs::rename(path("log"), path("moved")).expect("it is there");
        log.reopen(&target).expect("it can be written");
        log.push(record("/second"));
        assert!(log.reopen("/no/such/folder/log").is_err(), "the old one stays");
        log.push(record("/third"));
        log.close();
        log.push(record("/late"));
        let lines = |name: &str| fs::read_to_string(path(name)).expect("it is there").lines().count();
        assert_eq!((lines("log") + lines("moved"), log.totals()), (3, (3, 1)));
        let text = fs::read_to_string(path("log")).expect("it is there");
        assert!(text.contains("/second") && text.contains("/third"), "{text}");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let log = AccessLog::open("off").expect("there is nothing to open");
        (0..WAITING_MAX + 7).for_each(|_| log.push(record("/")));
        assert_eq!(log.totals(), (0, 7));
    }
}
