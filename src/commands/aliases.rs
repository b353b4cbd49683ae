//! SET_ALIAS, LIST_ALIASES and DELETE_ALIAS.

use super::{
    Caller, Command, Context, environments,
    page::{Asked, PAGE_MAX, Page},
    placement::{self, AliasMove, movable_alias},
    texts::check_text,
};
use crate::{
    error::{Error, ErrorCode},
    model::{AliasName, DeploymentKind, EnvironmentName, FunctionId, Timestamp, VersionLabel},
    protocol::message::{
        AliasDetails, AliasesRequest, AliasesResponse, DeleteAliasRequest, DeleteAliasResponse, DeployResponse,
        SetAliasRequest, SplitInfo,
    },
    router::{Alias, Entry},
    scheduler::Floor,
    store::{AliasChange, AliasRecord, Removal, StoreError},
};
use std::sync::Arc;

impl Command for SetAliasRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeployResponse, Error> {
        let alias = movable_alias(Some(&self.name))?;
        check_text("description", self.description.as_deref())?;
        check_text("reason", self.reason.as_deref())?;
        let environment = self.environment.map(|it| it.parse::<EnvironmentName>()).transpose()?;
        if alias.is_live() && environment.as_ref().is_some_and(|it| *it != alias.environment()) {
            return Err(Error::invalid(format!("LIVE runs only in {}", alias.environment())));
        }
        let id = context.router.function(&self.function_id)?.function.id;
        let wanted = AliasMove {
            environment: environment.clone(),
            change: AliasChange { description: self.description, ..AliasChange::default() },
            ..AliasMove::new(DeploymentKind::Promote, alias.clone(), caller, self.reason)
        };
        context
            .place(caller, id, async move |placement| {
                check_name(&placement.entry, &alias)?;
                if let Some(environment) = environment {
                    check_environment(&placement.context, id, &alias, environment).await?;
                }
                let version = placement::version(&placement.entry, &self.version)?;
                placement.check_capacity()?;
                placement.apply(wanted, version, self.dry_run).await
            })
            .await
    }
}

/// Refuses an alias whose name already stands for a version: the alias would hide the version from its callers.
pub(super) fn check_name(entry: &Entry, alias: &AliasName) -> Result<(), Error> {
    if alias.as_str().bytes().all(|it| it.is_ascii_digit()) {
        return Err(Error::invalid(format!("alias `{alias}` reads as the number of a version: add a letter")));
    }
    match entry.labelled(alias.as_str()) {
        Some(_) if entry.alias(alias.as_str()).is_none() => Err(Error::new(
            ErrorCode::Conflict,
            format!("`{alias}` is the label of a version, which an alias of that name would hide: choose another name"),
        )),
        _ => Ok(()),
    }
}

/// Checks the environment before any worker starts in it.
pub(super) async fn check_environment(
    context: &Arc<Context>,
    id: FunctionId,
    alias: &AliasName,
    environment: EnvironmentName,
) -> Result<(), Error> {
    let (alias, to) = (alias.clone(), environment.clone());
    let there = context.blocking(move |context| {
        context.store.may_move(id, &alias, &to)?;
        Ok(context.store.environments()?)
    });
    let there = there.await?;
    match there.iter().any(|it| it.name == environment) {
        true => Ok(()),
        false => Err(environments::not_found(environment, &there)),
    }
}

impl Command for AliasesRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<AliasesResponse, Error> {
        let id = context.router.function(&self.function_id)?.function.id;
        let asked = Asked { limit: self.limit, offset: None, cursor: self.cursor.as_deref() };
        let page = Page::<String>::new(context, "aliases", &asked, (PAGE_MAX, PAGE_MAX))?;
        let (record, entry) =
            context.blocking(move |context| Ok((context.store.state(id)?, context.router.by_id(id)?))).await?;
        let version = |id| entry.version(id);
        let details = |alias: &AliasRecord| {
            let target = version(alias.version_id)?;
            Some(AliasDetails {
                name: alias.name.clone(),
                environment: alias.environment.clone(),
                version: target.label.clone(),
                number: target.number,
                split: alias.split.and_then(|it| Some(SplitInfo::new(version(it.version_id)?, it))),
                sticky: alias.sticky.as_ref().map(ToString::to_string),
                previous_version: alias.previous.and_then(version).map(|it| it.label.clone()),
                description: alias.description.clone(),
                updated_at: alias.updated_at,
            })
        };
        if let Some(alias) =
            self.alias.as_deref().filter(|name| !record.aliases.iter().any(|it| it.name.as_str() == *name))
        {
            return Err(context.router.function(&self.function_id)?.alias_not_found(alias));
        }
        let is_behind = |it: &&AliasRecord| {
            let is_wanted = self.alias.as_deref().is_none_or(|name| it.name.as_str() == name);
            is_wanted && page.after.as_deref().is_none_or(|after| it.name.as_str() > after)
        };
        let rows = record.aliases.iter().filter(is_behind).filter_map(details);
        let (aliases, next_cursor) = page.fill(rows, |it| it.name.to_string(), |it| it);
        Ok(AliasesResponse { aliases, next_cursor })
    }
}

impl Command for DeleteAliasRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeleteAliasResponse, Error> {
        let name: AliasName = self.name.parse()?;
        if name.is_live() || name.is_rollback() {
            return Err(StoreError::AliasFixed(name).into());
        }
        let id = context.router.function(&self.function_id)?.function.id;
        let (owner, actor) = (Arc::clone(context), Arc::clone(&caller.actor));
        context
            .to_its_end(async move {
                let (_changing, entry) = owner.hold(id).await?;
                let removal = Removal { actor: actor.to_string(), reason: None, at: Timestamp::now() };
                let version = remove(&owner, &entry, name.clone(), removal).await?;
                Ok(DeleteAliasResponse { function_id: id, name: name.to_string(), version })
            })
            .await
    }
}

/// Deletes an alias and returns the label that it pointed at. The caller must hold the function's change lock.
pub(super) async fn remove(
    context: &Arc<Context>,
    entry: &Entry,
    name: AliasName,
    removal: Removal,
) -> Result<VersionLabel, Error> {
    let target = |alias: &Alias| entry.version(alias.version).map(|it| it.label.clone());
    let alias = entry.alias(name.as_str());
    let Some((alias, label)) = alias.and_then(|it| Some((it, target(it)?))) else {
        return Err(entry.alias_not_found(name.as_str()));
    };
    let (id, actor) = (entry.function.id, removal.actor.clone());
    context
        .blocking(move |context| {
            let row = context.store.delete_alias(id, &name, &removal)?;
            context.refresh_aliases(id, None)?;
            context.leave_manifests(&[row]);
            Ok(())
        })
        .await?;
    // Workers of the alias finish their invocations and then expire.
    let left = alias.targets().filter(|(version, _)| !entry.is_live_in(*version, &alias.environment));
    for pool in left.filter_map(|(version, _)| context.scheduler.existing(version, &alias.environment)) {
        pool.set_floor(Floor::Nothing);
    }
    tracing::info!(function = %entry.function.name, alias = %alias.name, actor, "alias deleted");
    Ok(label)
}
