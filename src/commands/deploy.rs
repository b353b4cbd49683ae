//! DEPLOY_FUNCTION: validate, store, load, and only then point the alias.
//!
//! A version's number is `v<number>` when it has no label of its own. Whatever fails, the alias stays where it was, and
//! no bundle, row or worker of the new version is left; the failure itself is kept in the audit trail.

use super::{
    Caller, Context, Partials,
    activate::{self, Act, DEPLOY_PATIENCE, Draft},
    aliases::check_environment,
    build::{self, NotPrepared, Prepared},
    cleanup,
    idempotency::{self, Begun},
    previews::Preview,
    register, room,
};
use crate::{
    deploy::{BuildLog, Source, Wanted},
    error::{Error, ErrorCode},
    model::{self, AliasName, DeploymentKind, FunctionName, Percent, Timestamp, Version, VersionId, VersionLabel},
    protocol::message::{DeployRequest, DeployResponse, RegisterRequest},
    router::Entry,
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Free text that is kept with a version or deployment.
const TEXT_BYTES_MAX: usize = 4096;

/// Tags of a version.
const TAGS_MAX: usize = 32;

pub(super) async fn run(
    context: &Arc<Context>,
    request: DeployRequest,
    caller: &Caller,
    partials: &Partials,
) -> Result<DeployResponse, Error> {
    let (sender, lines) = mpsc::unbounded_channel();
    let listener = request.follow.then_some(sender);
    let log = BuildLog::new(context.config.load().build.log_bytes_max as usize, listener);
    build::tell(lines, partials, run_with(context, request, caller, log)).await
}

async fn run_with(
    context: &Arc<Context>,
    mut request: DeployRequest,
    caller: &Caller,
    log: BuildLog,
) -> Result<DeployResponse, Error> {
    let preview = Preview::of(context, &request).await?;
    let alias = match &preview {
        Some(preview) => preview.alias.clone(),
        None => activate::alias(request.alias.as_deref())?,
    };
    check_fields(&request)?;
    let claim = match idempotency::begin(context, &mut request, caller).await? {
        Begun::Answered(answer) => return Ok(*answer),
        Begun::Claimed(claim) => Some(claim),
        Begun::Plain => None,
    };
    let label = request.version.take().map(|label| label.parse::<VersionLabel>()).transpose()?;
    let source = source(&mut request)?;
    let wanted = Wanted { entry: request.entry.clone(), build: request.build };
    let mut act = Act::new(context, DeploymentKind::Deploy, alias, caller, request.reason.clone());
    act.dry_run = request.dry_run;
    if let Some(preview) = &preview {
        (act.environment, act.lifetime) = (Some(preview.environment.clone()), Some(preview.lifetime));
    }
    let weight = request.weight.map(|it| Percent::try_from(it).map_err(|error| Error::invalid(error.to_string())));
    act.weight = weight.transpose()?;
    let is_new = context.router.function(&request.function_id).is_err();
    act.claim.clone_from(&claim);
    if is_new && request.create && source.is_some() && request.function_id.parse::<FunctionName>().is_ok() {
        let name = request.function_id.clone();
        let register = RegisterRequest { name, ..RegisterRequest::default() };
        act.new_function = true;
        if request.dry_run {
            let (function, versions, aliases) = (register::function(context, register)?, Vec::new(), Vec::new());
            let entry = Entry { function, versions, aliases, approved: None };
            let owner = Arc::clone(context);
            let rehearsing = async move {
                let code = prepare(&owner, source, wanted, log).await;
                deploy(act, &entry, code, label, request).await
            };
            return context.to_its_end(rehearsing).await;
        }
        act.new_function = register::run(context, register).await?.created;
    }
    let id = context.router.function(&request.function_id)?.function.id;
    let context = Arc::clone(context);
    let owner = Arc::clone(&context);
    owner
        .to_its_end(async move {
            let _preparing = match &source {
                Some(_) => Some(context.preparing.lock(id).await),
                None => None,
            };
            let code = prepare(&context, source, wanted, log).await;
            let _changing = context.changing.lock(id).await;
            if context.stopping.is_cancelled() {
                return Err(super::shutting_down());
            }
            let entry = context.router.function(&id.to_string())?;
            if let Some(preview) = &preview {
                preview.check_room(&context, &entry)?;
                check_environment(&context, id, &preview.alias, preview.environment.clone()).await?;
            }
            let answer = deploy(act, &entry, code, label, request).await?;
            if let Some(claim) = claim {
                claim.keep(&answer).await?;
            }
            Ok(answer)
        })
        .await
}

/// Where the code comes from, and the word for it that is kept.
type Code = (Source, model::Source);

/// Stages the code, if there is some. The log is complete when this is done.
async fn prepare(
    context: &Arc<Context>,
    code: Option<Code>,
    wanted: Wanted,
    log: BuildLog,
) -> Option<Result<Prepared, NotPrepared>> {
    Some(build::prepare(context, code?, wanted, &log).await)
}

async fn deploy(
    act: Act,
    entry: &Entry,
    code: Option<Result<Prepared, NotPrepared>>,
    label: Option<VersionLabel>,
    request: DeployRequest,
) -> Result<DeployResponse, Error> {
    room::check(&act.context, entry, &entry.function.settings)?;
    match (code, label) {
        (Some(Ok(code)), label) => publish(act, entry, code, label, request).await,
        (Some(Err(failed)), label) => Err(not_built(act, entry, failed, label).await),
        (None, Some(label)) => {
            let version = entry.labelled(label.as_str()).cloned();
            let version = version.ok_or_else(|| entry.version_not_found(label.as_str()))?;
            reuse(act, entry, &version, &request).await
        }
        (None, None) => Err(Error::invalid(
            "nothing to deploy: give `bundle_path`, `bundle`, `files` or `archive`, or the `version` to re-activate",
        )),
    }
}

/// Free text is bounded.
pub(super) fn check_text(name: &str, text: Option<&str>) -> Result<(), Error> {
    match text {
        Some(text) if text.len() > TEXT_BYTES_MAX => {
            Err(Error::invalid(format!("{name} is longer than {TEXT_BYTES_MAX} bytes")))
        }
        _ => Ok(()),
    }
}

fn check_fields(request: &DeployRequest) -> Result<(), Error> {
    let texts = [
        ("description", &request.description),
        ("reason", &request.reason),
        ("git_commit", &request.git_commit),
        ("git_branch", &request.git_branch),
    ];
    for (name, text) in texts {
        check_text(name, text.as_deref())?;
    }
    if request.weight.is_some() && request.activate == Some(false) {
        return Err(Error::invalid("a version that is not activated gets no share: leave out `weight` or `activate`"));
    }
    check_tags(&request.tags)
}

/// Tags are few and short.
pub(super) fn check_tags(tags: &[String]) -> Result<(), Error> {
    if tags.len() > TAGS_MAX || tags.iter().any(|it| it.is_empty() || it.len() > 128) {
        return Err(Error::invalid(format!("tags: at most {TAGS_MAX}, each of 1 to 128 bytes")));
    }
    Ok(())
}

fn source(request: &mut DeployRequest) -> Result<Option<Code>, Error> {
    let path = request.bundle_path.take().map(|path| (Source::Path(path.into()), model::Source::Path));
    let bytes = request.bundle.take().map(|bytes| (Source::Bytes(bytes.0), model::Source::Upload));
    let files = request.files.take().map(|files| {
        let files = files.into_iter().map(|(path, bytes)| (path, bytes.0)).collect();
        (Source::Files(files), model::Source::Upload)
    });
    let archive = request.archive.take().map(|bytes| (Source::Archive(bytes.0), model::Source::Archive));
    let mut given = [path, bytes, files, archive].into_iter().flatten();
    let source = given.next();
    if given.next().is_some() {
        return Err(Error::invalid("give one of `bundle_path`, `bundle`, `files` and `archive`, not several"));
    }
    Ok(source)
}

/// The number that the next version gets.
async fn next_number(act: &Act, entry: &Entry) -> Result<u32, Error> {
    let function_id = entry.function.id;
    match entry.versions.is_empty() && act.context.router.function(&function_id.to_string()).is_err() {
        // A dry run of a function that is still to be made.
        true => Ok(1),
        false => act.context.blocking(move |context| Ok(context.store.next_number(function_id)?)).await,
    }
}

/// Leaves word of a build that failed; other code that is no bundle is not worth it. Gives the failure.
async fn not_built(mut act: Act, entry: &Entry, failed: NotPrepared, label: Option<VersionLabel>) -> Error {
    let NotPrepared { mut error, log } = failed;
    if error.code != ErrorCode::BuildFailed || act.dry_run {
        return error;
    }
    let label = match label {
        Some(label) => Ok(label),
        None => next_number(&act, entry).await.and_then(|number| free_label(entry, number)),
    };
    if let Ok(label) = label {
        act.build_log = log;
        // The details are the log and what stands in it.
        let details = error.details.take();
        act.record_failure(entry, &label, &error).await;
        error.details = details;
    }
    error
}

/// Publishes a bundle as a new version, or finds that it is an existing one.
async fn publish(
    mut act: Act,
    entry: &Entry,
    Prepared { staged, kind, log }: Prepared,
    label: Option<VersionLabel>,
    request: DeployRequest,
) -> Result<DeployResponse, Error> {
    act.build_log = log;
    let is_same = |it: &Arc<Version>| it.digest == staged.digest() && it.entry == staged.entry();
    let same = match &label {
        Some(label) => entry.labelled(label.as_str()).cloned(),
        // Without a label, what the alias points at already need not be published again, nor what waits to be.
        None => match act.target(entry).filter(|it| is_same(it)) {
            Some(version) => Some(Arc::clone(version)),
            None => act.waiting(entry).await?.into_iter().map(|it| it.1).find(is_same),
        },
    };
    if let Some(version) = same {
        if version.digest != staged.digest() || version.entry != staged.entry() {
            return Err(Error::new(
                ErrorCode::VersionExists,
                format!(
                    "version `{}` exists with other code: a version does not change, choose another label",
                    version.label
                ),
            ));
        }
        drop(staged);
        return reuse(act, entry, &version, &request).await;
    }
    act.check_share(entry, None)?;
    let function_id = entry.function.id;
    let number = next_number(&act, entry).await?;
    let label = match label {
        Some(label) if is_alias(entry, label.as_str()) => {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("`{label}` is an alias, which would hide a version of that label: choose another label"),
            ));
        }
        Some(label) => label,
        None => free_label(entry, number)?,
    };
    let version = Version {
        id: VersionId::new(),
        function_id,
        label,
        number,
        digest: staged.digest(),
        size: staged.size(),
        entry: staged.entry().to_owned(),
        source: kind,
        git_commit: request.git_commit,
        git_branch: request.git_branch,
        description: request.description,
        tags: request.tags,
        bun_version: act.context.scheduler.spawner().runtime().version.to_string(),
        settings: entry.function.settings,
        created_at: Timestamp::now(),
    };
    let (warm, activate) = (request.warm.unwrap_or(0), request.activate.unwrap_or(true));
    match act.introduce(entry, staged, &version, warm, request.dry_run).await {
        Ok(()) if request.dry_run => {
            act.planned(entry, Draft { version: &version, is_new: true, activate, warm }).await
        }
        Ok(()) => {
            if activate {
                act.match_present(entry, &version, DEPLOY_PATIENCE).await;
            }
            let context = Arc::clone(&act.context);
            let published = act.commit(entry, &version, true, activate).await?;
            cleanup::after_deployment(&context, function_id);
            Ok(published)
        }
        Err(error) => {
            if !request.dry_run {
                act.record_failure(entry, &version.label, &error).await;
            }
            Err(error)
        }
    }
}

/// Points the alias at a version that exists, if the request wants it moved.
async fn reuse(
    act: Act,
    entry: &Entry,
    version: &Arc<Version>,
    request: &DeployRequest,
) -> Result<DeployResponse, Error> {
    let (warm, activate) = (request.warm.unwrap_or(0), request.activate.unwrap_or(true));
    act.check_share(entry, Some(version.id))?;
    if request.dry_run {
        return act.rehearse(entry, version, warm, activate).await;
    }
    if !act.is_done(entry, version) && !activate {
        return Ok(act.response(entry, version, None, "built", false));
    }
    act.activate(entry, version, warm).await
}

fn is_alias(entry: &Entry, label: &str) -> bool {
    entry.alias(label).is_some() || [AliasName::LIVE, AliasName::ROLLBACK].contains(&label)
}

/// `v<number>`; if somebody has taken that as a label of their own, `v<number>-2` and so on.
fn free_label(entry: &Entry, number: u32) -> Result<VersionLabel, Error> {
    let candidates = std::iter::once(format!("v{number}")).chain((2..).map(|again| format!("v{number}-{again}")));
    let mut free = candidates.filter(|label| entry.labelled(label).is_none() && !is_alias(entry, label));
    Ok(free.next().expect("a function has fewer versions than there are numbers").parse()?)
}
