//! DEPLOY_FUNCTION: validate, store, load, and only then point the alias.
//!
//! This file checks a request and prepares its code; [`publish`](mod@publish) makes a version of it. On any failure,
//! the alias stays where it was, and no bundle, row or worker of the new version is left; the failure itself is
//! recorded in the audit trail.

mod publish;
mod running;

use super::{
    Caller, Command, Context,
    activate::{self, Act},
    aliases::check_environment,
    build::{self, NotPrepared, Prepared},
    cancel::Cancellation,
    idempotency::{self, Begun},
    previews::Preview,
    register, room,
    texts::{check_tags, check_text},
};
use crate::{
    deploy::{BuildLog, Source, SourceOptions},
    error::Error,
    model::{self, DeploymentKind, Function, FunctionId, FunctionName, Percent, VersionLabel},
    protocol::message::{DeployRequest, DeployResponse, RegisterRequest},
    router::Entry,
};
use publish::{not_built, publish, reuse};
use running::Running;
use std::sync::Arc;
use tokio::sync::mpsc;

impl Command for DeployRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeployResponse, Error> {
        let (sender, lines) = mpsc::unbounded_channel();
        let listener = self.follow.then_some(sender);
        let log = BuildLog::new(context.config.load().build.log_bytes_max as usize, listener);
        build::tell(lines, caller, run_with(context, self, caller, log)).await
    }
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
    let code = source(&mut request, caller)?;
    let mut act = Act::new(context, DeploymentKind::Deploy, alias, caller, request.reason.clone());
    act.dry_run = request.dry_run;
    if let Some(preview) = &preview {
        (act.environment, act.lifetime) = (Some(preview.environment.clone()), Some(preview.lifetime));
    }
    let weight = request.weight.map(|it| Percent::try_from(it).map_err(|error| Error::invalid(error.to_string())));
    act.weight = weight.transpose()?;
    act.claim = claim;
    let order = Order { act, code, label, preview, request, log: Arc::new(log) };
    context.until_cancelled(caller, |cancellation| order.run(cancellation)).await
}

/// A valid deployment whose code is still to be prepared.
struct Order {
    act: Act,
    code: Option<Code>,
    label: Option<VersionLabel>,
    preview: Option<Preview>,
    request: DeployRequest,
    log: Arc<BuildLog>,
}

impl Order {
    async fn run(mut self, cancellation: Cancellation) -> Result<DeployResponse, Error> {
        self.act.cancellation = cancellation;
        if self.request.dry_run {
            return match self.function_to_make()? {
                Some(function) => self.rehearse_for(function).await,
                None => {
                    let id = self.act.context.router.function(&self.request.function_id)?.function.id;
                    self.carry_out(id).await
                }
            };
        }
        let running = Running::begin(&mut self).await?;
        let outcome = self.carry_out(running.row.function_id).await;
        running.end(outcome.as_ref().err()).await;
        outcome
    }

    /// The function that the deployment creates, if it does not exist and the request allows that.
    fn function_to_make(&mut self) -> Result<Option<Function>, Error> {
        let (name, context) = (&self.request.function_id, &self.act.context);
        let is_new = context.router.function(name).is_err();
        // A text that reads as an id cannot be the name of a new function.
        if !is_new || !self.request.create || self.code.is_none() || name.parse::<FunctionId>().is_ok() {
            return Ok(None);
        }
        name.parse::<FunctionName>().map_err(|error| Error::invalid(error.to_string()))?;
        let function =
            register::function(context, RegisterRequest { name: name.clone(), ..RegisterRequest::default() })?;
        self.act.new_function = true;
        Ok(Some(function))
    }

    /// Dry run for a function that does not exist yet.
    async fn rehearse_for(self, function: Function) -> Result<DeployResponse, Error> {
        let (context, cancellation) = (Arc::clone(&self.act.context), self.act.cancellation.clone());
        let code = prepare(&context, self.code, &self.request, self.log, &cancellation).await;
        deploy(self.act, &without_versions(function), code, self.label, self.request).await
    }

    /// Prepares the code, then takes the function's change lock and deploys.
    async fn carry_out(self, id: FunctionId) -> Result<DeployResponse, Error> {
        let Self { act, code, label, preview, request, log } = self;
        let (context, claim, cancellation) = (Arc::clone(&act.context), act.claim.clone(), act.cancellation.clone());
        let _preparing = match &code {
            Some(_) => Some(cancellation.run(context.preparing.lock(id)).await?),
            None => None,
        };
        let code = prepare(&context, code, &request, log, &cancellation).await;
        let (_changing, entry) = cancellation.run(context.hold(id)).await??;
        if let Some(preview) = &preview {
            preview.check_room(&context, &entry)?;
            check_environment(&context, id, &preview.alias, preview.environment.clone()).await?;
        }
        let answer = deploy(act, &entry, code, label, request).await?;
        if let Some(claim) = claim {
            claim.keep(&answer).await?;
        }
        Ok(answer)
    }
}

fn without_versions(function: Function) -> Entry {
    Entry { function, versions: Vec::new(), aliases: Vec::new(), approved: None }
}

/// Source of the code, and its kind for the record.
type Code = (Source, model::VersionSource);

/// Stages the code, if there is any.
async fn prepare(
    context: &Arc<Context>,
    code: Option<Code>,
    request: &DeployRequest,
    log: Arc<BuildLog>,
    cancellation: &Cancellation,
) -> Option<Result<Prepared, NotPrepared>> {
    let wanted = SourceOptions { entry: request.entry.clone(), build: request.build };
    Some(build::prepare(context, code?, wanted, &log, cancellation).await)
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

fn source(request: &mut DeployRequest, caller: &Caller) -> Result<Option<Code>, Error> {
    let at_path = |path: String| (Source::Path(path.into(), caller.reads_as.clone()), model::VersionSource::Path);
    let path = request.bundle_path.take().map(at_path);
    let bytes = request.bundle.take().map(|bytes| (Source::Bytes(bytes.0), model::VersionSource::Upload));
    let files = request.files.take().map(|files| {
        let files = files.into_iter().map(|(path, bytes)| (path, bytes.0)).collect();
        (Source::Files(files), model::VersionSource::Upload)
    });
    let archive = request.archive.take().map(|bytes| (Source::Archive(bytes.0), model::VersionSource::Archive));
    let mut given = [path, bytes, files, archive].into_iter().flatten();
    let source = given.next();
    if given.next().is_some() {
        return Err(Error::invalid("give one of `bundle_path`, `bundle`, `files` and `archive`, not several"));
    }
    Ok(source)
}
