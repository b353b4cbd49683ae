//! SET_VARIABLES, LIST_VARIABLES and DELETE_VARIABLES.

use super::{Caller, Command, Context, environments, secrets};
use crate::{
    error::{Error, ErrorCode},
    model::{
        EnvironmentName, FunctionId, Timestamp, Variable, VariableKey, VariablePlace, VariableValue, dotenv,
        variable::{NewValue, environment},
    },
    protocol::message::{
        ChangeVariablesResponse, DeleteVariablesRequest, ListVariablesRequest, ListVariablesResponse, PlaceInfo,
        RenewalInfo, SetVariablesRequest, VariableInfo, VariableInput,
    },
    secrets::{VariableSnapshot, scrub::MASKED_BYTES_MIN},
    store::{StoreError, VariableChange, VariableOutcome},
};
use futures_util::future::join_all;
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::timeout;

/// Maximum names in a refusal.
const REFUSED_MAX: usize = 50;

/// Maximum names in a warning.
const SHOWN_MAX: usize = 10;

/// A change of the variables of one place.
struct Change {
    place: VariablePlace,
    set: Vec<(VariableKey, NewValue)>,
    delete: Vec<VariableKey>,
    only_existing: bool,
    only_secrets: bool,
}

impl Command for SetVariablesRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<ChangeVariablesResponse, Error> {
        let place = context.variable_place(self.function_id.as_deref(), self.environment.as_deref())?;
        let only_existing = self.only_existing;
        let set = values(self, context.config.load().variables.value_bytes_max as usize)?;
        let short = set.iter().filter(|(_, value)| match value {
            NewValue::Secret(text) => text.len() < MASKED_BYTES_MIN,
            _ => false,
        });
        let warning = |key: &VariableKey| {
            format!("{key} is shorter than {MASKED_BYTES_MIN} bytes: it is not masked in logs, and can be guessed")
        };
        let mut warnings: Vec<String> = short.map(|(key, _)| warning(key)).collect();
        warnings.extend(seen_everywhere(&place, &set).filter(|_| !only_existing));
        let change = Change { place, set, delete: Vec::new(), only_existing, only_secrets: false };
        Ok(ChangeVariablesResponse { warnings, ..apply(context, change, caller).await? })
    }
}

/// Warns of secrets that every environment sees.
fn seen_everywhere(place: &VariablePlace, set: &[(VariableKey, NewValue)]) -> Option<String> {
    let secrets = set.iter().filter(|(_, value)| matches!(value, NewValue::Secret(_)));
    let keys: Vec<_> = secrets.map(|(key, _)| key.as_str()).collect();
    (place.environment.is_none() && !keys.is_empty()).then(|| {
        let (mut shown, more) = (keys.join(", "), keys.len().saturating_sub(SHOWN_MAX));
        if more > 0 {
            shown = format!("{} and {more} more", keys[..SHOWN_MAX].join(", "));
        }
        format!(
            "{shown}: visible in every environment, including previews and unapproved code. To limit it, delete it and \
             set it with `-e production` (`environment`)."
        )
    })
}

impl Command for DeleteVariablesRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<ChangeVariablesResponse, Error> {
        let place = context.variable_place(self.function_id.as_deref(), self.environment.as_deref())?;
        let mut delete = Vec::new();
        for key in self.keys.iter().chain(&self.key) {
            let not_there = |_| {
                let message = format!("there is no variable `{key:.128}`; `levain env list` lists the existing ones");
                Error::new(ErrorCode::VariableNotFound, message)
            };
            delete.push(key.parse::<VariableKey>().map_err(not_there)?);
        }
        delete.sort_unstable();
        delete.dedup();
        if delete.is_empty() {
            return Err(Error::invalid("no variable is named: give `key` or `keys`"));
        }
        let only_secrets = self.only_secrets;
        apply(context, Change { place, set: Vec::new(), delete, only_existing: false, only_secrets }, caller).await
    }
}

/// Values that a request sets, each key once; all problems of the request are reported at once.
fn values(request: SetVariablesRequest, bytes_max: usize) -> Result<Vec<(VariableKey, NewValue)>, Error> {
    let is_secret = request.is_secret;
    let mut inputs = request.variables;
    match (request.key, request.value) {
        (Some(key), Some(value)) => {
            inputs.push(VariableInput { key, value: Some(value), ..VariableInput::default() });
        }
        (None, None) => {}
        _ => return Err(Error::invalid("`key` and `value` go together")),
    }
    if let Some(text) = &request.dotenv {
        let parsed = dotenv::parse(text.expose()).map_err(|error| Error::invalid(format!(".env: {error}")))?;
        inputs.extend(parsed.into_iter().map(|(key, _, value)| VariableInput {
            key,
            value: Some(value),
            ..VariableInput::default()
        }));
    }
    if inputs.is_empty() && request.dotenv.is_some() {
        return Err(Error::invalid("nothing is set: the .env text has no variable"));
    }
    if inputs.is_empty() {
        return Err(Error::invalid("nothing is set: give `key` and `value`, `variables` or `dotenv`"));
    }
    let mut set = BTreeMap::new();
    let mut refused = Vec::new();
    for input in inputs {
        let shown: String = input.key.chars().take(80).collect();
        match value(input, is_secret, bytes_max) {
            Ok((key, value)) => {
                if set.insert(key, value).is_some() {
                    refused.push((shown, "it is set twice".to_owned()));
                }
            }
            Err(why) => refused.push((shown, why)),
        }
    }
    if refused.is_empty() {
        return Ok(set.into_iter().collect());
    }
    let shown = refused.iter().take(REFUSED_MAX);
    let message = shown.clone().map(|(key, why)| format!("`{key}`: {why}")).collect::<Vec<_>>().join("; ");
    let more = refused.len().saturating_sub(REFUSED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let details: Vec<_> = shown.map(|(key, why)| serde_json::json!({ "key": key, "reason": why })).collect();
    let error = Error::invalid(format!("nothing is set: {message}{more}"));
    Err(error.with_details(serde_json::json!({ "refused": details })))
}

fn value(input: VariableInput, is_secret: Option<bool>, max: usize) -> Result<(VariableKey, NewValue), String> {
    let key: VariableKey = input.key.parse().map_err(|error: crate::model::variable::KeyError| error.to_string())?;
    let is_secret = input.is_secret.or(is_secret);
    let value = match (input.value, input.from_generation) {
        (Some(text), None) => text,
        (None, Some(generation)) => return Ok((key, NewValue::Generation(generation))),
        (None, None) => return Err("it has no value".into()),
        (Some(_), Some(_)) => return Err("it has a value and `from_generation`".into()),
    };
    if value.len() > max {
        return Err(format!("its value has {} bytes, more than {max} (variables.value_bytes_max)", value.len()));
    }
    if value.expose().contains('\0') {
        return Err("its value has a NUL, which no environment can hold".into());
    }
    if is_secret == Some(true) && value.is_empty() {
        return Err("a secret cannot be empty".into());
    }
    let value = match is_secret {
        Some(true) => NewValue::Secret(value),
        Some(false) => NewValue::Plain(value),
        None => NewValue::Kept(value),
    };
    Ok((key, value))
}

async fn apply(context: &Arc<Context>, change: Change, caller: &Caller) -> Result<ChangeVariablesResponse, Error> {
    let (owner, actor, is_admin) = (Arc::clone(context), Arc::clone(&caller.actor), caller.is_admin);
    context
        .to_its_end(async move {
            let changing = owner.locks.variables.lock().await;
            let by = Arc::clone(&actor);
            let place = change.place.describe();
            let outcome = owner.blocking(move |context| write(context, &change, by, is_admin)).await?;
            drop(changing);
            let workers = owner.renew_workers().await;
            let VariableOutcome { created, changed, unchanged, deleted, .. } = outcome;
            let names = |keys: Vec<VariableKey>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (created, changed, deleted) = (names(created), names(changed), names(deleted));
            tracing::info!(place, ?created, ?changed, ?deleted, actor = &*actor, "variables changed");
            let warnings = Vec::new();
            Ok(ChangeVariablesResponse { created, changed, unchanged: names(unchanged), deleted, workers, warnings })
        })
        .await
}

/// Writes a change and takes it into the snapshot. The caller must hold the lock.
fn write(context: &Context, change: &Change, actor: Arc<str>, is_admin: bool) -> Result<VariableOutcome, Error> {
    let (config, snapshot) = (context.config.load(), context.variables.snapshot());
    if change.only_existing {
        let present = snapshot.all.get(&change.place);
        let is_missing = |key: &&VariableKey| present.is_none_or(|it| !it.contains_key(*key));
        let missing: Vec<_> = change.set.iter().map(|(key, _)| key).filter(is_missing).cloned().collect();
        if !missing.is_empty() {
            return Err(StoreError::VariableNotFound(missing).into());
        }
    }
    let plain = plain(change, &snapshot);
    if !plain.is_empty() {
        return Err(StoreError::NotSecret(plain).into());
    }
    let master = match change.set.iter().any(|(_, value)| matches!(value, NewValue::Secret(_))) {
        true => Some(secrets::master_key(context)?),
        false => snapshot.master.clone(),
    };
    let outcome = context.store.change_variables(&VariableChange {
        place: &change.place,
        set: &change.set,
        delete: &change.delete,
        master: master.as_deref(),
        actor,
        is_admin,
        now: Timestamp::now(),
        generations_kept: config.secrets.generations_kept,
        variables_max: config.variables.count_max as usize,
        bytes_max: config.variables.total_bytes_max as usize,
        audit_rows_max: config.secrets.audit_rows_max,
    })?;
    let present = context.store.variables_of(&change.place)?;
    context.variables.put(snapshot.with(&change.place, present, master));
    Ok(outcome)
}

/// Plain variables that a change treats as secrets.
fn plain(change: &Change, snapshot: &VariableSnapshot) -> Vec<VariableKey> {
    let rotated = change.set.iter().filter(|(_, it)| change.only_existing && matches!(it, NewValue::Secret(_)));
    let deleted = change.delete.iter().filter(|_| change.only_secrets);
    let present = snapshot.all.get(&change.place);
    let is_plain = |key: &&VariableKey| {
        present.and_then(|it| it.get(*key)).is_some_and(|it| matches!(it.value, VariableValue::Plain(_)))
    };
    rotated.map(|(key, _)| key).chain(deleted).filter(is_plain).cloned().collect()
}

impl Context {
    /// Takes in variables and the inheritance of environments from the store, and replaces workers whose variables
    /// change. It is for commands outside this file that change either.
    pub async fn reload_variables(self: &Arc<Self>) -> Result<RenewalInfo, Error> {
        let changing = self.locks.variables.lock().await;
        let reload = |context: &Self| {
            let snapshot = context.variables.snapshot();
            let (master, why) = (snapshot.master.clone(), snapshot.why_no_master.clone());
            context.variables.put(secrets::snapshot(context.store.variables()?, master, why));
            Ok(())
        };
        self.blocking(reload).await?;
        drop(changing);
        Ok(self.renew_workers().await)
    }

    /// Replaces workers whose variables are not the present ones, and waits for that a while.
    async fn renew_workers(&self) -> RenewalInfo {
        let renewals = self.scheduler.renew();
        let pools = renewals.len() as u32;
        let patience = self.config.load().variables.renew_timeout();
        let one = |renewal: crate::scheduler::Renewal| async move {
            let shown = format!("{}@{}", renewal.blueprint().function, renewal.blueprint().version);
            match timeout(patience, renewal.done()).await {
                Ok(Ok(())) => (0, None),
                Ok(Err(error)) => {
                    let why = error.map_or_else(String::new, |error| format!(": {error}"));
                    (1, Some(format!("a worker of {shown} with the present values did not start{why}")))
                }
                Err(_) => (1, None),
            }
        };
        let ended = join_all(renewals.into_iter().map(one)).await;
        let pending = ended.iter().map(|(pending, _)| pending).sum();
        RenewalInfo { pools, pending, failure: ended.into_iter().find_map(|(_, failure)| failure) }
    }
}

impl Command for ListVariablesRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<ListVariablesResponse, Error> {
        let place = context.variable_place(self.function_id.as_deref(), self.environment.as_deref())?;
        if let Some(environment) = &place.environment {
            environments::find(&environments::records(context).await?, environment)?;
        }
        let variables = match (self.resolved, place.function) {
            (true, None) => return Err(Error::invalid("`resolved` needs a function: name one")),
            (true, Some(function)) => resolved(context, function, place.environment),
            (false, _) => own(context, &place),
        };
        let secrets: Vec<_> = variables.iter().filter(|it| it.is_secret).map(|it| it.key.clone()).collect();
        if self.reveal && !secrets.is_empty() {
            let place =
                VariablePlace { function: place.function, environment: environment(self.environment.as_deref())? };
            return Err(secrets::deny(context, place, &secrets, caller).await?);
        }
        Ok(ListVariablesResponse { variables })
    }
}

fn resolved(context: &Context, function: FunctionId, environment: Option<EnvironmentName>) -> Vec<VariableInfo> {
    let environment = environment.unwrap_or_else(EnvironmentName::production);
    let resolved = context.variables.snapshot().resolve(function, &environment);
    let row = |it: &crate::model::variable::Resolved| VariableInfo {
        hides: it.hidden.iter().map(|it| place_info(&it.place)).collect(),
        ..info(&it.found)
    };
    resolved.values().map(row).collect()
}

fn own(context: &Context, place: &VariablePlace) -> Vec<VariableInfo> {
    let snapshot = context.variables.snapshot();
    let is_asked_for = |it: &&VariablePlace| {
        it.function == place.function && (place.environment.is_none() || it.environment == place.environment)
    };
    let rows = snapshot.all.iter().filter(|(it, _)| is_asked_for(it)).flat_map(|(_, rows)| rows.values());
    let mut rows: Vec<_> = rows.collect();
    // A place without an environment is the farthest.
    rows.sort_by_key(|it| (&it.key, it.place.environment.is_none(), &it.place.environment));
    rows.into_iter().map(|it| info(it)).collect()
}

fn info(variable: &Variable) -> VariableInfo {
    let (value, generation) = match &variable.value {
        VariableValue::Plain(text) => (Some(text.clone()), None),
        VariableValue::Secret(sealed) => (None, Some(sealed.generation)),
    };
    VariableInfo {
        key: variable.key.clone(),
        is_secret: value.is_none(),
        value,
        generation,
        place: place_info(&variable.place),
        hides: Vec::new(),
        actor: variable.actor.to_string(),
        created_at: variable.created_at,
        updated_at: variable.updated_at,
    }
}

fn place_info(place: &VariablePlace) -> PlaceInfo {
    PlaceInfo { function_id: place.function.map(|it| it.to_string()), environment: place.environment.as_ref().cloned() }
}
