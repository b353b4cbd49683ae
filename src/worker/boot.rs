//! Processes whose shim is up: first without a function, then as a worker.
//!
//! ```text
//! boot ──ready──▶ Booted ──assign──▶ Worker
//!                   │ dropped: ended   │ the bundle does not load: ended, with its output
//! ```

use super::{
    Worker,
    blueprint::{Blueprint, SpawnLimits},
    error::StartError,
    exit::{Exit, KillReason},
    inner::{Owner, WorkerInner},
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

/// Maximum bytes read of an answer to an assignment.
const ASSIGN_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Time in which a worker that has closed its channel is expected to exit.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// A process that waits for its function. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Booted {
    guard: KillGuard,
    link: Link,
    slot: Arc<Slot>,
    network: Network,
}

/// Ends a process on drop unless disarmed.
#[derive(Debug)]
struct KillGuard(Option<Arc<WorkerInner>>);

impl KillGuard {
    fn shared(&self) -> &Arc<WorkerInner> {
        self.0.as_ref().expect("only disarming takes it, which consumes the guard")
    }

    fn disarm(mut self) -> Arc<WorkerInner> {
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

/// Reason why a start failed.
enum Cause {
    Load(Box<LoadError>),
    Prepare(io::Error),
    Protocol(String),
    Timeout(Duration),
}

impl Booted {
    /// Waits until the shim of a new process is up.
    pub(super) async fn new(
        shared: Arc<WorkerInner>,
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

    /// Runs an assignment and a first invocation once with an empty file, so that Bun does its lazy initialisation now.
    /// This takes a third off the time from a claim to the first answer.
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

    /// Ends the process and waits until it is gone.
    pub(super) async fn end(self) {
        let shared = self.guard.disarm();
        shared.kill(KillReason::Stop);
        shared.exited().await;
    }

    /// Gives the process normal priority: its start is over, and from now on somebody may wait for it.
    pub(super) fn become_urgent(&self) {
        if let Some(group) = self.slot.group()
            && let Err(error) = group.set_low_priority(false)
        {
            tracing::warn!(%error, "cannot raise a worker from the low priority of its start");
        }
    }

    /// Whether the process still lives.
    pub(super) fn is_alive(&self) -> bool {
        self.guard.shared().exit.borrow().is_none()
    }

    /// Loads a function. `asked` is the time at which the start was requested, `kind` the kind of start.
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
            blueprint.variables.record_injection(Injection {
                at: Timestamp::now(),
                function: blueprint.function_id,
                version: blueprint.version.clone(),
                environment: blueprint.environment.clone(),
                secrets: given.secrets,
            });
        }
        let (variables, revisions) = (given.variables, given.revisions);
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
                    revisions,
                });
            }
            Ok(Err(cause)) => cause.without_secrets(guard.shared()),
            Err(_) => Cause::Timeout(limits.start_timeout),
        };
        Err(fail(guard, cause).await)
    }
}

impl Cause {
    /// Masks secrets in the error, because an error at import may quote the function's variables.
    fn without_secrets(self, shared: &WorkerInner) -> Self {
        let Some(scrubber) = shared.scrubber() else { return self };
        let Self::Load(mut error) = self else { return self };
        let LoadError { name, message, stack, file, line_text, .. } = &mut *error;
        let texts = [name.as_mut(), Some(message), stack.as_mut(), file.as_mut(), line_text.as_mut()];
        texts.into_iter().flatten().for_each(|text| *text = scrubber.scrub_line(text, usize::MAX));
        Self::Load(error)
    }
}

/// Ends a process that cannot get further, and returns everything known about its failure.
async fn fail(guard: KillGuard, cause: Cause) -> StartError {
    let shared = guard.disarm();
    if matches!(cause, Cause::Protocol(_)) {
        // A process that did not answer has mostly ended, and its exit says more than its silence.
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

/// Room for each byte of a value in an assignment: JSON never needs more, so the buffer is never reallocated, and no
/// copy of a secret stays in memory.
const JSON_BYTES_PER_BYTE: usize = 6;

/// Room for the rest of an assignment.
const ASSIGNMENT_BYTES: usize = 16 * 1024;

async fn assign(
    link: &Link,
    slot: &Slot,
    blueprint: &Blueprint,
    limits: &SpawnLimits,
    variables: BTreeMap<String, SecretText>,
) -> Result<Assigned, Cause> {
    slot.deliver(&blueprint.bundle).await.map_err(Cause::Prepare)?;
    // The compiled code is a cache: any part of it may be missing at any time.
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

/// Serialises an assignment into a buffer that is wiped after it has been sent.
fn written(assignment: &Assignment) -> Bytes {
    let values: usize = assignment.variables.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(ASSIGNMENT_BYTES + JSON_BYTES_PER_BYTE * values));
    serde_json::to_writer(&mut *body, assignment).expect("plain data serialises");
    Bytes::from_owner(body)
}
