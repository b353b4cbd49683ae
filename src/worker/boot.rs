//! A process whose shim is up: first without a function, then the worker of one.
//!
//! ```text
//! boot ──ready──▶ Booted ──assign──▶ Worker
//!                   │ dropped: ended   │ the bundle does not load: ended, with what it wrote
//! ```

use super::{
    Exit, KillReason, Owner, Shared, Worker,
    blueprint::{Blueprint, SpawnLimits},
    error::StartError,
    link::{Link, SocketPath},
    sandbox::Slot,
};
use crate::{
    model::{ColdStart, Network, SecretText, Timestamp},
    protocol::worker::{ASSIGN_PATH, AssignFailed, Assigned, Assignment, COMPILED_FILE, LoadError, REHEARSAL_PATH},
    secrets::Injection,
};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, time::timeout};
use zeroize::Zeroizing;

/// The most bytes of an answer to an assignment that are read.
const ASSIGN_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long a worker that has closed its channel may take to be gone.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// A process that waits for its function. Dropped, it is ended.
#[derive(Debug)]
pub(super) struct Booted {
    guard: KillGuard,
    link: Link,
    slot: Arc<Slot>,
    network: Network,
}

/// Ends a process unless it is disarmed.
#[derive(Debug)]
struct KillGuard(Option<Arc<Shared>>);

impl KillGuard {
    fn shared(&self) -> &Arc<Shared> {
        self.0.as_ref().expect("only disarming takes it, which consumes the guard")
    }

    fn disarm(mut self) -> Arc<Shared> {
        self.0.take().expect("only disarming takes it, which consumes the guard")
    }
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.kill(KillReason::Stop);
        }
    }
}

/// Why a start goes no further.
enum Cause {
    Load(Box<LoadError>),
    Prepare(io::Error),
    Protocol(String),
    Timeout(Duration),
}

impl Booted {
    /// Waits until the shim of a new process is up.
    pub(super) async fn new(
        shared: Arc<Shared>,
        slot: Arc<Slot>,
        network: Network,
        ready: oneshot::Receiver<()>,
        limits: &SpawnLimits,
    ) -> Result<Self, StartError> {
        let guard = KillGuard(Some(shared));
        let cause = match timeout(limits.start_timeout, ready).await {
            Ok(Ok(())) => {
                let socket = slot.take_socket(guard.shared().process.pid())?;
                return Ok(Self { guard, link: Link::new(SocketPath::new(socket)), slot, network });
            }
            Ok(Err(_)) => Cause::Protocol("it closed its control channel".into()),
            Err(_) => Cause::Timeout(limits.start_timeout),
        };
        Err(fail(guard, cause).await)
    }

    /// Has it do once what an assignment and a first invocation make it do, with a file that does nothing: what Bun does
    /// only when it is first needed is done then. That takes a third off the time from a claim to the first answer.
    pub(super) async fn rehearse(&self, entry: &Path, limits: &SpawnLimits) -> Result<(), StartError> {
        let body = serde_json::to_vec(&Assignment::of_nothing(entry)).expect("plain data serialises");
        let answer = self.link.call(&Method::PUT, REHEARSAL_PATH, body.into(), ASSIGN_ANSWER_BYTES_MAX);
        match timeout(limits.start_timeout, answer).await {
            Ok(Ok((StatusCode::OK, _))) => Ok(()),
            Ok(Ok((status, _))) => Err(StartError::Protocol(format!("it answered a rehearsal with {status}"))),
            Ok(Err(error)) => Err(StartError::Protocol(format!("it did not answer a rehearsal: {error}"))),
            Err(_) => Err(StartError::Timeout { after: limits.start_timeout, boot_log: Vec::new() }),
        }
    }

    /// Ends the process, and waits until it is gone.
    pub(super) async fn end(self) {
        let shared = self.guard.disarm();
        shared.kill(KillReason::Stop);
        shared.exited().await;
    }

    /// Whoever waits for it now, it has started.
    pub(super) fn become_urgent(&self) {
        if let Some(group) = self.slot.group()
            && let Err(error) = group.set_low_priority(false)
        {
            tracing::warn!(%error, "a worker keeps the priority of its start");
        }
    }

    /// Whether the process still lives.
    pub(super) fn is_alive(&self) -> bool {
        self.guard.shared().exit.borrow().is_none()
    }

    /// Loads a function. `asked` is when the start was asked for, `kind` what kind of start it is.
    pub(super) async fn assign(
        self,
        blueprint: &Blueprint,
        limits: &SpawnLimits,
        asked: Instant,
        kind: ColdStart,
    ) -> Result<Worker, StartError> {
        let Self { guard, link, slot, network } = self;
        let given = blueprint.variables.open(blueprint.function_id, &blueprint.environment)?;
        let owner = Owner {
            function_id: blueprint.function_id,
            version: blueprint.version.clone(),
            memory_max: Arc::clone(&blueprint.memory_max),
            scrubber: given.scrubber,
        };
        guard.shared().limit_memory(blueprint.memory_max.load(Ordering::Relaxed));
        guard.shared().owner.set(owner).expect("a process is assigned once, because that consumes it");
        if !given.secrets.is_empty() {
            blueprint.variables.note(Injection {
                at: Timestamp::now(),
                function: blueprint.function_id,
                version: blueprint.version.clone(),
                environment: blueprint.environment.clone(),
                secrets: given.secrets,
            });
        }
        let (variables, worn) = (given.variables, given.worn);
        let cause = match timeout(limits.start_timeout, assign(&link, &slot, blueprint, limits, variables)).await {
            Ok(Ok(assigned)) => {
                let (start_time, ready_at) = (asked.elapsed(), Instant::now());
                let (shared, memory_at_first) = (guard.disarm(), AtomicU64::new(0));
                return Ok(Worker {
                    shared,
                    link,
                    start_time,
                    ready_at,
                    kind,
                    network,
                    assigned,
                    memory_at_first,
                    worn,
                });
            }
            Ok(Err(cause)) => cause.without_secrets(guard.shared()),
            Err(_) => Cause::Timeout(limits.start_timeout),
        };
        Err(fail(guard, cause).await)
    }
}

impl Cause {
    /// An error at import may say what it was given.
    fn without_secrets(self, shared: &Shared) -> Self {
        let Some(scrubber) = shared.scrubber() else { return self };
        let Self::Load(mut error) = self else { return self };
        let LoadError { name, message, stack, file, line_text, .. } = &mut *error;
        let texts = [name.as_mut(), Some(message), stack.as_mut(), file.as_mut(), line_text.as_mut()];
        texts.into_iter().flatten().for_each(|text| *text = scrubber.scrub_line(text, usize::MAX));
        Self::Load(error)
    }
}

/// Ends a process that does not get further, and puts together what is known about it.
async fn fail(guard: KillGuard, cause: Cause) -> StartError {
    let shared = guard.disarm();
    if matches!(cause, Cause::Protocol(_)) {
        // Without an answer the process has mostly ended, and how it did says more than its silence.
        let _ = timeout(EXIT_GRACE, shared.exited()).await;
    }
    let ended_before = shared.exit.borrow().is_some();
    shared.kill(if matches!(cause, Cause::Timeout(_)) { KillReason::StartTimeout } else { KillReason::Stop });
    let exit: Exit = shared.exited().await;
    match cause {
        Cause::Load(error) => StartError::Load { error, boot_log: exit.last_words },
        Cause::Timeout(after) => StartError::Timeout { after, boot_log: exit.last_words },
        Cause::Prepare(error) => error.into(),
        Cause::Protocol(_) if ended_before => StartError::Exited(exit),
        Cause::Protocol(message) => StartError::Protocol(message),
    }
}

/// Room for each byte of a value in an assignment: none takes more as JSON, so that what is written is never moved.
const JSON_BYTES_PER_BYTE: usize = 6;

/// Room for all else in it.
const ASSIGNMENT_BYTES: usize = 16 * 1024;

async fn assign(
    link: &Link,
    slot: &Slot,
    blueprint: &Blueprint,
    limits: &SpawnLimits,
    variables: BTreeMap<String, SecretText>,
) -> Result<Assigned, Cause> {
    slot.deliver(&blueprint.bundle).await.map_err(Cause::Prepare)?;
    // Any part of a cache may be gone at any time.
    let compiled = match blueprint.compiled.unchanged() {
        Some(folder) => slot.deliver(folder).await.ok(),
        None => None,
    };
    let folder = slot.bundle_inside();
    let compiled = compiled.map(|_| folder.join(COMPILED_FILE));
    let assignment = Assignment {
        function: blueprint.function.to_string(),
        function_id: blueprint.function_id.to_string(),
        version: blueprint.version.to_string(),
        environment: blueprint.environment.to_string(),
        entry: folder.join(&blueprint.entry).to_string_lossy().into_owned(),
        compiled: compiled.map(|it| it.to_string_lossy().into_owned()),
        handler: blueprint.handler.clone(),
        variables,
        log_line_bytes_max: u32::try_from(limits.line_bytes_max).unwrap_or(u32::MAX),
        levain: env!("CARGO_PKG_VERSION").into(),
    };
    let body = written(&assignment);
    drop(assignment);
    let protocol = |error: &dyn Display| Cause::Protocol(error.to_string());
    let answer = link.call(&Method::PUT, ASSIGN_PATH, body, ASSIGN_ANSWER_BYTES_MAX).await;
    let (status, answer) = answer.map_err(|error| protocol(&error))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&answer).map_err(|error| protocol(&error));
    }
    let AssignFailed { error } = serde_json::from_slice(&answer).map_err(|error| protocol(&error))?;
    Err(Cause::Load(Box::new(error)))
}

/// An assignment as JSON, which is wiped when it has been sent.
fn written(assignment: &Assignment) -> Bytes {
    let values: usize = assignment.variables.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(ASSIGNMENT_BYTES + JSON_BYTES_PER_BYTE * values));
    serde_json::to_writer(&mut *body, assignment).expect("plain data serialises");
    Bytes::from_owner(body)
}
