//! One invocation of a function, for every face of the daemon: from the request to the last byte of the answer, counted
//! and logged exactly once.

use super::{Context, shutting_down};
use crate::{
    error::{Error, ErrorCode},
    model::{Invocation, InvocationId, Timestamp, Timing, VersionLabel},
    protocol::worker::LogLevel,
    router::Route,
    scheduler::{self, InvokeError, Pace, Reply, Wait},
    telemetry::{LogRecord, Observation, Stream},
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, uri::PathAndQuery};
use std::{sync::Arc, time::Duration};

/// Methods that workers serve; other methods would only break their connection.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];

/// Limits of a request's path, query and headers together: Bun takes heads of 16 KiB, the daemon's own part included,
/// and about 200 headers.
pub(super) const HEAD_BYTES_MAX: usize = 15 * 1024;
const HEADERS_MAX: usize = 150;

/// An invocation whose answer has begun. Dropping it before its end means that the caller has left: the function is
/// told, and nothing is counted.
#[derive(Debug)]
pub struct Call {
    context: Arc<Context>,
    route: Route,
    id: InvocationId,
    reply: Reply,
    is_counted: bool,
}

/// An invocation without a complete answer.
#[derive(Debug)]
pub struct Failed {
    /// Error for the caller.
    pub error: Error,
    /// Time spent in each phase.
    pub timing: Timing,
    /// Version that should have answered.
    pub version: VersionLabel,
}

/// Parses a method, in large or small letters, that functions can be invoked with.
pub(super) fn method(name: &str) -> Result<Method, Error> {
    let found = METHODS.into_iter().find(|it| it.as_str().eq_ignore_ascii_case(name));
    found.ok_or_else(|| not_served(name))
}

/// Refuses a method that functions cannot be invoked with. `get` is not `GET` (RFC 9110, section 9.1).
pub fn check_method(given: &Method) -> Result<(), Error> {
    if METHODS.contains(given) { Ok(()) } else { Err(not_served(given.as_str())) }
}

fn not_served(name: &str) -> Error {
    let served = METHODS.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    Error::invalid(format!("method `{name}` is not served: use one of {served}"))
}

/// Refuses a head that Bun would answer with 431 instead of the function.
pub fn check_head(target: &PathAndQuery, headers: &HeaderMap) -> Result<(), Error> {
    let of_headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let bytes = target.as_str().len() + of_headers;
    if bytes > HEAD_BYTES_MAX || headers.len() > HEADERS_MAX {
        return Err(Error::new(
            ErrorCode::PayloadTooLarge,
            format!(
                "path, query and headers have {bytes} bytes in {} headers; a function takes at most {HEAD_BYTES_MAX} \
                 bytes in {HEADERS_MAX} headers: move the rest into the body",
                headers.len()
            ),
        ));
    }
    Ok(())
}

/// Sends an invocation and waits for the head of its answer. `again` gives the next route if the version is removed
/// while the invocation waits.
pub async fn call(
    context: &Arc<Context>,
    mut route: Route,
    again: impl Fn() -> Option<Route>,
    invocation: &Invocation,
) -> Result<Call, Failed> {
    let mut waited_elsewhere = Duration::ZERO;
    loop {
        let pool = context.pool(&route.entry, &route.version, &route.environment);
        let mut failed = match pool.invoke(invocation).await {
            Ok(mut reply) => {
                reply.add_to_queue(waited_elsewhere);
                return Ok(Call { context: Arc::clone(context), route, id: invocation.id, reply, is_counted: false });
            }
            Err(failed) => failed,
        };
        let is_gone = is_gone(context, &route, &failed);
        failed.timing.queue += waited_elsewhere;
        match is_gone.then(&again).flatten() {
            Some(next) => {
                waited_elsewhere = failed.timing.queue;
                route = next;
            }
            None => {
                let failed = refine(context, &route, failed);
                count(context, &route, invocation.id, 0, failed.timing, Some(&failed.error));
                return Err(failed);
            }
        }
    }
}

/// Whether an invocation failed because its version was removed before a worker took it. Its alias had already moved
/// on, or it would have held the version, so the invocation can follow the alias.
fn is_gone(context: &Context, route: &Route, failed: &scheduler::Failed) -> bool {
    let is_refused = matches!(failed.error, InvokeError::Closed | InvokeError::Start(_));
    // An invocation that was sent has run for a while, and must not run twice.
    if !is_refused || !failed.timing.run.is_zero() {
        return false;
    }
    let (function, version) = (route.entry.function.id, route.version.id);
    let is_gone = context.router.by_id(function).is_ok_and(|entry| entry.version(version).is_none());
    if is_gone {
        // This invocation may have recreated the pool after it was closed.
        context.scheduler.close(version);
    }
    is_gone
}

impl Call {
    /// Id of the invocation.
    #[must_use]
    pub fn id(&self) -> InvocationId {
        self.id
    }

    /// Route to the version that answers.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.reply.status()
    }

    /// Headers of the answer.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.reply.headers()
    }

    /// Waits before the run.
    #[must_use]
    pub fn wait(&self) -> Wait {
        self.reply.wait()
    }

    /// Time spent in each phase so far.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.reply.timing()
    }

    /// Lets the answer take longer than the invocation's timeout, as long as it keeps this pace.
    pub fn keep_pace(&mut self, pace: Pace) {
        self.reply.keep_pace(pace);
    }

    /// Returns the next bytes of the body; `None` at its end, where the invocation is counted.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        match self.reply.chunk().await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                self.count(self.reply.timing(), None);
                Ok(None)
            }
            Err(failed) => {
                let failed = refine(&self.context, &self.route, failed);
                self.count(failed.timing, Some(&failed.error));
                Err(failed)
            }
        }
    }

    /// Ends the invocation with this error, without the rest of its answer.
    pub fn fail(mut self, error: Error) -> Failed {
        let timing = self.reply.timing();
        self.count(timing, Some(&error));
        Failed { error, timing, version: self.route.version.label.clone() }
    }

    fn count(&mut self, timing: Timing, failure: Option<&Error>) {
        if !std::mem::replace(&mut self.is_counted, true) {
            count(&self.context, &self.route, self.id, self.reply.status().as_u16(), timing, failure);
        }
    }
}

/// Turns a failure into the error for the client.
fn refine(context: &Context, route: &Route, failed: scheduler::Failed) -> Failed {
    let error = match &failed.error {
        InvokeError::Closed if context.stopping.is_cancelled() => shutting_down(),
        error => error.into(),
    };
    Failed { error, timing: failed.timing, version: route.version.label.clone() }
}

fn count(context: &Context, route: &Route, id: InvocationId, status: u16, timing: Timing, failure: Option<&Error>) {
    let (function_id, version) = (route.entry.function.id, &route.version);
    let at = Timestamp::now();
    let code = failure.map(|error| error.code);
    let (version_id, label, outcome) = (version.id, &version.label, code.map_or(Ok(status), Err));
    let observation = Observation { function_id, version_id, version: label, outcome, timing, at };
    context.telemetry.metrics().record(&observation);
    if let Some(guard) = &route.guard {
        guard.record(code, status, timing.run);
    }
    if let Some(error) = failure {
        let stack = error.details.as_ref().and_then(|details| details.get("stack")?.as_str());
        let message = match stack {
            Some(stack) => format!("{}: {}\n{stack}", error.code, error.message),
            None => format!("{}: {}", error.code, error.message),
        };
        context.telemetry.logs().push(LogRecord {
            at,
            function_id,
            version: version.label.clone(),
            invocation: Some(id),
            worker: 0,
            stream: Stream::System,
            level: LogLevel::Error,
            message,
        });
    }
}
