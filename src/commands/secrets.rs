//! SECRET_GENERATIONS, SECRET_AUDIT and ROTATE_MASTER_KEY; and the daemon's secrets at its start.

use super::{
    Caller, Command, Context,
    page::{Asked, PAGE_MAX, Page},
};
use crate::{
    config::{Config, Switch},
    crash_point::crash_point,
    error::{Error, ErrorCode},
    model::{SecretAction, SecretAudit, Timestamp, Variable, VariableKey, VariablePlace},
    protocol::message::{
        GenerationInfo, RotateMasterKeyRequest, RotateMasterKeyResponse, SecretAuditInfo, SecretAuditRequest,
        SecretAuditResponse, SecretGenerationsRequest, SecretGenerationsResponse,
    },
    secrets::{Injection, KeySource, MasterKey, SecretError, VariableSnapshot, Variables},
    store::{Store, StoreError, VariableRecords},
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Default number of rows of the audit trail.
const AUDIT_ROWS: u32 = 100;

/// Actor that gives secrets to workers, in the audit trail.
const DAEMON: &str = "daemon";

/// Reason why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenVariablesError {
    /// Secrets could not be opened.
    #[error("{0}; set secrets.allow_missing_key = \"on\" to run functions without secrets anyway")]
    Secrets(#[from] SecretError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the variables, and the key that seals their secrets.
pub fn open_variables(
    store: &Store,
    config: &Config,
    data_dir: &Path,
) -> Result<(Variables, KeySource), OpenVariablesError> {
    let records = store.variables()?;
    let source = KeySource::find(&config.secrets.master_key_file, data_dir);
    let (master, why) = match right_key(&source, &records) {
        Ok(master) => (master.map(Arc::new), String::new()),
        Err(error) if config.secrets.allow_missing_key == Switch::On => {
            tracing::error!("secrets are not available: {error}");
            (None, error.to_string())
        }
        Err(error) => return Err(error.into()),
    };
    let variables = Variables::default();
    variables.put(snapshot(records, master, why));
    Ok((variables, source))
}

/// Returns the present key, if it is the required one.
fn right_key(source: &KeySource, records: &VariableRecords) -> Result<Option<MasterKey>, SecretError> {
    let from = || source.to_string();
    match (source.read(records.master_key_id.as_ref())?, &records.master_key_id) {
        (Some(key), Some(wanted)) if key.id() != wanted => {
            Err(SecretError::WrongKey { from: from(), found: key.id().clone(), wanted: wanted.clone() })
        }
        (None, Some(_)) => Err(SecretError::NoKey { from: from() }),
        (key, _) => Ok(key),
    }
}

/// Builds the in-memory snapshot of the variables.
pub(super) fn snapshot(
    records: VariableRecords,
    master: Option<Arc<MasterKey>>,
    why_no_master: String,
) -> VariableSnapshot {
    let mut places: BTreeMap<VariablePlace, BTreeMap<VariableKey, Arc<Variable>>> = BTreeMap::new();
    for variable in records.variables {
        let place = places.entry(variable.place.clone()).or_default();
        place.insert(variable.key.clone(), Arc::new(variable));
    }
    let mut snapshot = VariableSnapshot::new(records.parents, master, why_no_master);
    snapshot.all = places.into_iter().collect();
    snapshot
}

/// Returns the key that seals secrets; created if there is none yet. The caller must hold the lock.
pub(super) fn master_key(context: &Context) -> Result<Arc<MasterKey>, Error> {
    let snapshot = context.variables.snapshot();
    match &snapshot.master {
        Some(master) => Ok(Arc::clone(master)),
        None if !snapshot.why_no_master.is_empty() => Err(SecretError::Locked(snapshot.why_no_master.clone()).into()),
        None => {
            let source = &context.key_source;
            let key = match source.read(None)? {
                Some(key) => key,
                None => source.make()?,
            };
            Ok(Arc::new(key))
        }
    }
}

impl Command for SecretGenerationsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<SecretGenerationsResponse, Error> {
        let place = context.variable_place(self.function_id.as_deref(), self.environment.as_deref())?;
        let key: VariableKey = self.key.parse()?;
        let found = context.blocking(move |context| Ok(context.store.secret_generations(&place, &key)?)).await?;
        let row = |it: crate::store::GenerationRecord| GenerationInfo {
            generation: it.generation,
            is_current: it.is_current,
            actor: it.actor,
            created_at: it.created_at,
        };
        Ok(SecretGenerationsResponse { generations: found.into_iter().map(row).collect() })
    }
}

impl Command for SecretAuditRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<SecretAuditResponse, Error> {
        let (function, absent) = match self.function_id.as_deref().map(|it| (it, context.router.function(it))) {
            None => (None, None),
            Some((_, Ok(entry))) => (Some(entry.function.id), None),
            // The rows about a deleted function are found by its id.
            Some((id, Err(error))) => (Some(id.parse().map_err(|_| error.clone())?), Some(error)),
        };
        let asked = Asked { limit: self.limit, offset: None, cursor: None };
        let limit = Page::<u64>::new(context, "secret audit", &asked, (AUDIT_ROWS, PAGE_MAX))?.limit;
        // The answer includes injections up to now.
        context.write_injections().await?;
        let rows = context.blocking(move |context| Ok(context.store.secret_audit(function, limit)?)).await?;
        if let Some(error) = absent.filter(|_| rows.is_empty()) {
            return Err(error);
        }
        Ok(SecretAuditResponse { entries: rows.into_iter().map(|it| entry(context, it)).collect() })
    }
}

fn entry(context: &Context, row: SecretAudit) -> SecretAuditInfo {
    let function_id = row.function.map(|it| it.to_string());
    let function = function_id.as_ref().and_then(|id| context.router.function(id).ok());
    SecretAuditInfo {
        at: row.at,
        action: row.action,
        actor: row.actor.to_string(),
        function_id,
        function: function.map(|it| it.function.name.to_string()),
        environment: row.environment,
        key: row.key,
        generation: row.generation,
        detail: row.detail,
        count: row.count,
        last_at: row.last_at,
    }
}

/// Records that a caller asked to see secrets, and returns the refusal.
pub(super) async fn deny(
    context: &Arc<Context>,
    place: VariablePlace,
    keys: &[VariableKey],
    caller: &Caller,
) -> Result<Error, Error> {
    let now = Timestamp::now();
    let keys = keys.iter().map(VariableKey::as_str).collect::<Vec<_>>().join(", ");
    let row = SecretAudit {
        at: now,
        action: SecretAction::RevealDenied,
        actor: Arc::clone(&caller.actor),
        function: place.function,
        environment: place.environment,
        key: None,
        generation: None,
        detail: Some(keys.clone()),
        count: 1,
        last_at: now,
    };
    context.blocking(move |context| context.audit(&[row])).await?;
    let message = format!("the values of secrets are never shown: {} (this request is recorded)", keys);
    Ok(Error::new(ErrorCode::Forbidden, message))
}

impl Command for RotateMasterKeyRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<RotateMasterKeyResponse, Error> {
        let (owner, actor) = (Arc::clone(context), Arc::clone(&caller.actor));
        context
            .to_its_end(async move {
                let _changing = owner.locks.variables.lock().await;
                owner.blocking(move |context| rewrap(context, &actor)).await
            })
            .await
    }
}

fn rewrap(context: &Context, actor: &Arc<str>) -> Result<RotateMasterKeyResponse, Error> {
    let present = master_key(context)?;
    let next = Arc::new(context.key_source.next(&present)?);
    let outcome = context.store.rewrap_secrets((&present, &next), actor, Timestamp::now());
    crash_point("secrets.committed");
    // The database says which key counts: an error may come after its transaction too, such as from a full disk. If it
    // cannot say, both keys stay.
    let records = context.store.variables()?;
    let is_done = match &records.master_key_id {
        Some(id) => id == next.id(),
        None => outcome.is_ok(),
    };
    let in_force = if is_done { &next } else { &present };
    // The new snapshot precedes the files: secrets that are set from now on open at the next start, whatever happens to
    // those.
    context.variables.put(snapshot(records, Some(Arc::clone(in_force)), String::new()));
    let settled = context.key_source.settle(in_force.id());
    let told = |error: Error| match is_done {
        true => {
            Error { message: format!("the master key was rotated to {}, but {}", next.id(), error.message), ..error }
        }
        false => error,
    };
    let count = outcome.map_err(|error| told(error.into()))?;
    tracing::info!(key = %next.id(), data_keys = count, actor = &**actor, "the master key was rotated");
    settled.map_err(|error| told(error.into()))?;
    Ok(RotateMasterKeyResponse { key_id: next.id().to_string(), data_keys: count as u32 })
}

impl Context {
    /// Records which workers were given secrets, as far as that is not on disk.
    pub async fn write_injections(self: &Arc<Self>) -> Result<(), Error> {
        let injections = self.variables.take_injections();
        if injections.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = injections.into_iter().map(injected).collect();
        self.blocking(move |context| context.audit(&rows)).await
    }

    fn audit(&self, rows: &[SecretAudit]) -> Result<(), Error> {
        Ok(self.store.audit_secrets(rows, self.config.load().secrets.audit_rows_max)?)
    }
}

fn injected(injection: Injection) -> SecretAudit {
    SecretAudit {
        at: injection.at,
        action: SecretAction::Inject,
        actor: DAEMON.into(),
        function: Some(injection.function),
        environment: Some(injection.environment),
        key: None,
        generation: None,
        detail: Some(format!("version {}: {}", injection.version, injection.secrets.join(", "))),
        count: 1,
        last_at: injection.at,
    }
}
