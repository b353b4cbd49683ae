//! CREATE_ENVIRONMENT, SET_ENVIRONMENT, GET_ENVIRONMENT, LIST_ENVIRONMENTS, DELETE_ENVIRONMENT and
//! COMPARE_ENVIRONMENTS.

mod compare;

use super::{
    Caller, Command, Context,
    page::{Asked, PAGE_MAX, Page},
};
use crate::{
    error::{Error, ErrorCode},
    model::{
        EnvironmentName, Timestamp, Variable, VariableValue,
        environment::{self, EnvironmentLink, EnvironmentLinks},
    },
    protocol::message::{
        CreateEnvironmentRequest, DeleteEnvironmentRequest, EnvironmentDetails, EnvironmentInfo, EnvironmentRequest,
        EnvironmentRun, EnvironmentsRequest, EnvironmentsResponse, SetEnvironmentRequest, SplitInfo,
    },
    router::Entry,
    store::{EnvironmentChange, EnvironmentRecord, StoreError},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

impl Command for CreateEnvironmentRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<EnvironmentInfo, Error> {
        let name: EnvironmentName = self.name.parse()?;
        let parent = parent(self.parent.as_deref())?;
        let change = EnvironmentChange { protected: Some(self.protected), parent, allow: self.allow };
        let actor = Arc::clone(&caller.actor);
        let make = {
            let (name, actor) = (name.clone(), Arc::clone(&actor));
            move |context: &Context| Ok(context.store.create_environment(&name, &change, &actor, Timestamp::now())?)
        };
        let info = carry_out(context, name, make, move |info| {
            tracing::info!(environment = %info.name, parent = info.parent.as_ref().map(tracing::field::display), actor = &*actor, "environment created");
        });
        let info = info.await?;
        // An earlier environment of this name may have had another parent.
        let owner = Arc::clone(context);
        context.to_its_end(async move { owner.reload_variables().await }).await?;
        Ok(info)
    }
}

impl Command for SetEnvironmentRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<EnvironmentInfo, Error> {
        let name: EnvironmentName = self.name.parse()?;
        let parent = parent(self.parent.as_deref())?;
        if self.protected.is_none() && parent.is_none() {
            return Err(Error::invalid("nothing to change: give `protected`, `parent` or both"));
        }
        let is_moved = parent.is_some();
        let change = EnvironmentChange { protected: self.protected, parent, allow: self.allow };
        let actor = Arc::clone(&caller.actor);
        let apply = {
            let (name, actor) = (name.clone(), Arc::clone(&actor));
            move |context: &Context| {
                context.store.change_environment(&name, &change, &actor, Timestamp::now())?;
                // The router's picture of a function includes whether a version may run there by its own name.
                match change.protected {
                    Some(_) => refresh_all(context),
                    None => Ok(()),
                }
            }
        };
        let info = carry_out(context, name, apply, move |info| {
            let EnvironmentInfo { name, parent, protected, .. } = info;
            tracing::info!(environment = %name, parent = parent.as_ref().map(tracing::field::display), protected, actor = &*actor, "environment changed");
        });
        let info = info.await?;
        if is_moved {
            // Another parent means other variables.
            let owner = Arc::clone(context);
            context.to_its_end(async move { owner.reload_variables().await }).await?;
        }
        let warnings =
            if self.protected == Some(true) { shared_secrets(context, info.name.as_str()) } else { Vec::new() };
        Ok(EnvironmentInfo { warnings, ..info })
    }
}

/// Warns of secrets that protection does not cover: those for all environments.
fn shared_secrets(context: &Context, environment: &str) -> Vec<String> {
    let snapshot = context.variables.snapshot();
    let shared = snapshot.all.iter().filter(|(place, _)| place.environment.is_none());
    let is_secret = |it: &&Arc<Variable>| matches!(it.value, VariableValue::Secret(_));
    let count = shared.flat_map(|(_, rows)| rows.values()).filter(is_secret).count();
    let secrets = match count {
        0 => return Vec::new(),
        1 => "1 secret is".to_owned(),
        _ => format!("{count} secrets are"),
    };
    vec![format!(
        "{secrets} visible in every environment, including previews and unapproved code. To limit a secret, delete it \
         and set it with `-e {environment}`."
    )]
}

fn refresh_all(context: &Context) -> Result<(), Error> {
    for entry in context.router.functions().iter() {
        match context.refresh_aliases(entry.function.id, None) {
            // The function was deleted meanwhile.
            Err(error) if error.code == ErrorCode::FunctionNotFound => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// The parent that a request names; an empty text means none.
fn parent(name: Option<&str>) -> Result<Option<Option<EnvironmentName>>, Error> {
    match name {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        Some(name) => Ok(Some(Some(name.parse()?))),
    }
}

/// Runs a change of an environment to its end, and returns the environment's new state.
async fn carry_out(
    context: &Arc<Context>,
    name: EnvironmentName,
    change: impl FnOnce(&Context) -> Result<(), Error> + Send + 'static,
    done: impl FnOnce(&EnvironmentInfo) + Send + 'static,
) -> Result<EnvironmentInfo, Error> {
    let owner = Arc::clone(context);
    context
        .to_its_end(async move {
            let changed = owner.blocking(change).await;
            let records = owner.blocking(|context| Ok(context.store.environments()?)).await?;
            let info = match changed {
                // The error lists the existing environments.
                Err(error) if error.code == ErrorCode::EnvironmentNotFound => return Err(not_found(name, &records)),
                Err(error) => return Err(error),
                Ok(()) => info(find(&records, &name)?),
            };
            done(&info);
            Ok(info)
        })
        .await
}

impl Command for DeleteEnvironmentRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<EnvironmentInfo, Error> {
        let name: EnvironmentName = self.name.parse()?;
        let (owner, actor) = (Arc::clone(context), Arc::clone(&caller.actor));
        let deleted = name.clone();
        let delete = move |context: &Context| {
            let records = context.store.environments()?;
            let record = find(&records, &deleted)?;
            context.store.delete_environment(&deleted)?;
            tracing::info!(environment = %deleted, actor = &*actor, "environment deleted");
            Ok(info(record))
        };
        context
            .to_its_end(async move {
                let info = owner.blocking(delete).await?;
                // A new environment with this name is another one, and gets no worker of this one. Running invocations have
                // this long to finish before the answer.
                let patience = Instant::now() + CLOSE_PATIENCE;
                while owner.scheduler.close_in(&name) && Instant::now() < patience {
                    tokio::time::sleep(CLOSE_POLL).await;
                }
                Ok(info)
            })
            .await
    }
}

/// Time for which the deletion of an environment waits for the end of its workers, and the interval of its checks.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
const CLOSE_POLL: Duration = Duration::from_millis(10);

impl Command for EnvironmentRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<EnvironmentDetails, Error> {
        let name: EnvironmentName = self.name.parse()?;
        let records = records(context).await?;
        let info = info(find(&records, &name)?);
        let links: EnvironmentLinks = records
            .iter()
            .map(|it| (it.name.clone(), EnvironmentLink { parent: it.parent.clone(), protected: it.protected }))
            .collect();
        let children = records.iter().filter(|it| it.parent.as_ref() == Some(&name));
        Ok(EnvironmentDetails {
            ancestors: environment::ancestors(&links, &name).into_iter().map(ToString::to_string).collect(),
            children: children.map(|it| it.name.to_string()).collect(),
            runs: context.router.functions().iter().flat_map(|entry| runs(entry, &name)).collect(),
            info,
        })
    }
}

fn runs(entry: &Entry, environment: &EnvironmentName) -> Vec<EnvironmentRun> {
    let there = entry.aliases.iter().filter(|it| it.environment == *environment);
    let run = there.filter_map(|alias| {
        let version = entry.version(alias.version)?;
        Some(EnvironmentRun {
            function: entry.function.name.to_string(),
            alias: alias.name.to_string(),
            version: version.label.clone(),
            number: version.number,
            split: alias.split.and_then(|it| Some(SplitInfo::new(entry.version(it.version_id)?, it))),
        })
    });
    run.collect()
}

impl Command for EnvironmentsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<EnvironmentsResponse, Error> {
        let asked = Asked { limit: self.limit, offset: None, cursor: self.cursor.as_deref() };
        let page = Page::<String>::new(context, "environments", &asked, (PAGE_MAX, PAGE_MAX))?;
        let records = records(context).await?;
        let rows = records.iter().filter(|it| page.after.as_deref().is_none_or(|after| it.name.as_str() > after));
        let (environments, next_cursor) = page.fill(rows, |it| it.name.to_string(), info);
        Ok(EnvironmentsResponse { environments, next_cursor })
    }
}

/// All environments, by name.
pub(super) async fn records(context: &Arc<Context>) -> Result<Vec<EnvironmentRecord>, Error> {
    context.blocking(|context| Ok(context.store.environments()?)).await
}

/// Finds the environment with this name.
pub(super) fn find<'a>(
    records: &'a [EnvironmentRecord],
    name: &EnvironmentName,
) -> Result<&'a EnvironmentRecord, Error> {
    records.iter().find(|it| it.name == *name).ok_or_else(|| not_found(name.clone(), records))
}

/// Error for a missing environment, with the list of existing ones.
pub(super) fn not_found(name: EnvironmentName, records: &[EnvironmentRecord]) -> Error {
    let there: Vec<_> = records.iter().map(|it| &it.name).collect();
    let details = serde_json::json!({ "environment": name, "environments": there });
    Error::from(StoreError::EnvironmentNotFound(name)).with_details(details)
}

fn info(record: &EnvironmentRecord) -> EnvironmentInfo {
    EnvironmentInfo {
        name: record.name.clone(),
        parent: record.parent.as_ref().map(ToString::to_string),
        protected: record.protected,
        aliases: record.aliases,
        created_at: record.created_at,
        warnings: Vec::new(),
    }
}
