//! PROMOTE and PROMOTE_ALL: the version of one environment runs in another, without a build.
//!
//! A promotion points an alias like any other act: the same version loads in workers of the other environment, then the
//! alias of that environment moves, in a protected one after an approval. The version before stays for a rollback.

use super::{
    Caller, Command, Context,
    aliases::{check_environment, check_name},
    environments,
    manifests::{Wanted, apply_all},
    placement::{AliasMove, movable_alias},
    texts::check_text,
};
use crate::{
    error::{Error, ErrorCode},
    model::{AliasName, DeploymentKind, EnvironmentName, Version},
    protocol::message::{DeployResponse, PromoteAllRequest, PromoteAllResponse, PromoteRequest, SkippedFunction},
    router::{Alias, Entry},
    store::EnvironmentRecord,
};
use std::sync::Arc;

/// Default environments that versions come from and go to.
const FROM: &str = "staging";
const TO: &str = "production";

/// The alias that stands for a function in an environment.
pub(super) enum Standing<'a> {
    /// No alias runs there.
    Nothing,
    /// The alias with the environment's name, or the only one there.
    One(&'a Alias),
    /// Several aliases, none with the environment's name.
    Several(Vec<&'a str>),
}

impl<'a> Standing<'a> {
    pub(super) fn of(entry: &'a Entry, environment: &EnvironmentName) -> Self {
        let is_there = |it: &&Alias| it.environment == *environment && !it.name.is_rollback();
        let there: Vec<&Alias> = entry.aliases.iter().filter(is_there).collect();
        let called = environment.alias();
        match there.iter().find(|it| it.name == called).or(if there.len() == 1 { there.first() } else { None }) {
            Some(one) => Self::One(one),
            None if there.is_empty() => Self::Nothing,
            None => Self::Several(there.iter().map(|it| it.name.as_str()).collect()),
        }
    }

    pub(super) fn alias(&self) -> Option<&'a Alias> {
        match self {
            Self::One(alias) => Some(alias),
            Self::Nothing | Self::Several(_) => None,
        }
    }

    /// Reason why no single alias stands for the function.
    pub(super) fn unclear(&self, environment: &EnvironmentName) -> Option<String> {
        let Self::Several(names) = self else { return None };
        let (called, names) = (environment.alias(), names.join(", "));
        Some(format!("several aliases run in {environment} and none is called {called}: {names}"))
    }
}

/// One end of a promotion: an environment, and the alias there if one is named.
struct End {
    environment: EnvironmentName,
    alias: Option<AliasName>,
}

impl End {
    /// Resolves `name`: an environment, or an alias, which implies its environment.
    fn find(entry: &Entry, records: &[EnvironmentRecord], name: &str, alias: Option<&str>) -> Result<Self, Error> {
        let alias = alias.map(|it| movable_alias(Some(it))).transpose()?;
        let environment: EnvironmentName = name.parse()?;
        if records.iter().any(|it| it.name == environment) {
            return Ok(Self { environment, alias });
        }
        let named: Option<AliasName> = movable_alias(Some(name)).ok();
        let found = named.and_then(|named| {
            let known = entry.alias(named.as_str()).map(|it| it.environment.clone());
            // An alias with an environment's name implies the environment, even before the alias exists.
            let by_name = || Some(named.environment()).filter(|it| it.alias() == named);
            known.or_else(by_name).map(|environment| (named, environment))
        });
        match (found, alias) {
            (Some((named, environment)), None) => Ok(Self { environment, alias: Some(named) }),
            (Some((named, _)), Some(alias)) => {
                Err(Error::invalid(format!("two aliases are given, {named} and {alias}: give one, or an environment")))
            }
            (None, _) => Err(environments::not_found(environment, records)),
        }
    }

    /// Alias that the version is taken from.
    fn source<'a>(&self, entry: &'a Entry) -> Result<&'a Alias, Error> {
        let (function, environment) = (&entry.function.name, &self.environment);
        let alias = match (&self.alias, Standing::of(entry, environment)) {
            (Some(name), _) => {
                let alias = entry.alias(name.as_str()).ok_or_else(|| entry.alias_not_found(name.as_str()))?;
                self.runs_here(alias)?;
                alias
            }
            (None, Standing::One(alias)) => alias,
            (None, Standing::Nothing) => {
                let called = environment.alias();
                let message = format!(
                    "nothing of `{function}` runs in {environment}: deploy it there first, with `levain deploy \
                     {function} PATH --alias {called}`"
                );
                return Err(Error::new(ErrorCode::AliasNotFound, message));
            }
            (None, several) => {
                let why = several.unclear(environment).unwrap_or_default();
                return Err(Error::invalid(format!("{why}; choose one with `--from-alias`")));
            }
        };
        match alias.split {
            None => Ok(alias),
            Some(_) => {
                let name = &alias.name;
                let message = format!(
                    "{name} of `{function}` divides its calls between two versions: end that first, with `levain \
                     traffic promote {function} --alias {name}` or `levain traffic clear {function} --alias {name}`"
                );
                Err(Error::new(ErrorCode::Conflict, message))
            }
        }
    }

    /// Alias that is pointed at the version.
    fn target(&self, entry: &Entry) -> Result<AliasName, Error> {
        let environment = &self.environment;
        let name = match (&self.alias, Standing::of(entry, environment)) {
            (Some(name), _) => name.clone(),
            (None, Standing::One(alias)) => alias.name.clone(),
            (None, Standing::Nothing) => movable_alias(Some(environment.alias().as_str()))?,
            (None, several) => {
                let why = several.unclear(environment).unwrap_or_default();
                return Err(Error::invalid(format!("{why}; choose one with `--alias`")));
            }
        };
        if name.is_live() && !environment.is_production() {
            return Err(Error::invalid(format!("LIVE runs only in {}", name.environment())));
        }
        check_name(entry, &name)?;
        if let Some(alias) = entry.alias(name.as_str()) {
            self.runs_here(alias)?;
        }
        Ok(name)
    }

    fn runs_here(&self, alias: &Alias) -> Result<(), Error> {
        if alias.environment == self.environment {
            return Ok(());
        }
        let message = format!(
            "{} runs in {}, not in {}: name another alias, or move that one with `levain alias set`",
            alias.name, alias.environment, self.environment
        );
        Err(Error::new(ErrorCode::Conflict, message))
    }
}

/// Version that an alias points at.
fn version(entry: &Entry, alias: &Alias) -> Result<Arc<Version>, Error> {
    entry.version(alias.version).cloned().ok_or_else(|| entry.alias_not_found(alias.name.as_str()))
}

/// Reason for the promotion, with the origin of the version.
fn reason(given: Option<&str>, from: &EnvironmentName, alias: Option<&AliasName>) -> String {
    let place = alias.map_or_else(|| format!("from {from}"), |alias| format!("from {alias} in {from}"));
    given.map_or_else(|| place.clone(), |given| format!("{given} ({place})"))
}

impl Command for PromoteRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeployResponse, Error> {
        check_text("reason", self.reason.as_deref())?;
        let id = context.router.function(&self.function_id)?.function.id;
        let records = environments::records(context).await?;
        let by = caller.clone();
        context
            .place(caller, id, async move |placement| {
                let entry = &placement.entry;
                let end = |name: Option<&str>, default, alias: Option<&str>| {
                    End::find(entry, &records, name.unwrap_or(default), alias)
                };
                let from = end(self.from.as_deref(), FROM, self.from_alias.as_deref())?;
                let to = end(self.to.as_deref(), TO, self.alias.as_deref())?;
                let (source, target) = (from.source(entry)?, to.target(entry)?);
                if source.name == target {
                    return Err(Error::invalid(format!("{target} cannot be promoted to itself: name two places")));
                }
                check_environment(&placement.context, id, &target, to.environment.clone()).await?;
                let reason = reason(self.reason.as_deref(), &from.environment, Some(&source.name));
                let wanted = AliasMove {
                    environment: Some(to.environment),
                    ..AliasMove::new(DeploymentKind::Promote, target, &by, Some(reason))
                };
                placement.check_capacity()?;
                placement.apply(wanted, version(entry, source)?, self.dry_run).await
            })
            .await
    }
}

/// Step of a promotion for one function.
enum Todo {
    Promote(Box<Wanted>),
    /// Both environments have the same code.
    Nothing,
    Skip(String),
}

/// Promotes every function of one environment to the other, or changes nothing.
impl Command for PromoteAllRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<PromoteAllResponse, Error> {
        check_text("reason", self.reason.as_deref())?;
        let records = environments::records(context).await?;
        let name = |name: Option<&str>, default: &str| -> Result<EnvironmentName, Error> {
            let name = name.unwrap_or(default).parse()?;
            environments::find(&records, &name)?;
            Ok(name)
        };
        let (from, to) = (name(self.from.as_deref(), FROM)?, name(self.to.as_deref(), TO)?);
        if from == to {
            return Err(Error::invalid(format!("{from} cannot be promoted to itself: name two environments")));
        }
        let (owner, by, dry_run) = (Arc::clone(context), caller.clone(), self.dry_run);
        let reason = reason(self.reason.as_deref(), &from, None);
        context
            .until_cancelled(caller, |cancellation| async move {
                let functions = owner.router.functions();
                let holding = owner.hold_all(functions.iter().map(|it| it.function.id));
                let _changing = cancellation.run(holding).await??;
                let (mut changed, mut unchanged, mut skipped) = (Vec::new(), 0, Vec::new());
                for entry in owner.router.functions().iter() {
                    let function = entry.function.name.to_string();
                    match todo(entry, &from, &to) {
                        Some(Todo::Nothing) => unchanged += 1,
                        Some(Todo::Promote(wanted)) => changed.push(*wanted),
                        Some(Todo::Skip(reason)) => skipped.push(SkippedFunction { function, reason }),
                        None => {}
                    }
                }
                let changes = apply_all(&owner, changed, &by, &reason, (dry_run, cancellation)).await?;
                let (from, to) = (from.to_string(), to.to_string());
                Ok(PromoteAllResponse { from, to, dry_run, changes, unchanged, skipped })
            })
            .await
    }
}

/// Returns `None` if the function does not run in `from`.
fn todo(entry: &Arc<Entry>, from: &EnvironmentName, to: &EnvironmentName) -> Option<Todo> {
    let end = |environment: &EnvironmentName| End { environment: environment.clone(), alias: None };
    if matches!(Standing::of(entry, from), Standing::Nothing) {
        return None;
    }
    let wanted = || {
        let source = end(from).source(entry)?;
        let target = end(to).target(entry)?;
        let (version, present) =
            (version(entry, source)?, entry.alias(target.as_str()).filter(|it| it.split.is_none()));
        let has_its_code = |it: &Alias| entry.version(it.version).is_some_and(|it| it.digest == version.digest);
        if present.is_some_and(has_its_code) {
            return Ok(Todo::Nothing);
        }
        Ok::<_, Error>(Todo::Promote(Box::new(Wanted::of(entry, target, to.clone(), version))))
    };
    Some(match wanted() {
        Ok(todo) => todo,
        Err(error) => Todo::Skip(error.message),
    })
}
