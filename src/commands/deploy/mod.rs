//! DEPLOY_FUNCTION: validate, store, load, and only then point the alias.
//!
//! This file checks a request and prepares its code; [`publish`](mod@publish) makes a version of it. On any failure,
//! the alias stays where it was, and no bundle, row or worker of the new version is left; the failure itself is
//! recorded in the audit trail.

mod publish;
mod running;

use super::{
    Caller, Command, Context,
    aliases::check_environment,
    build::{self, NotPrepared, Prepared},
    cancel::Cancellation,
    idempotency::{self, Begun, Claim},
    placement::{AliasMove, Delivery, Placement, movable_alias},
    previews::Preview,
    register,
    texts::{check_tags, check_text},
};
use crate::{
    deploy::{BuildLog, Source, SourceOptions},
    error::Error,
    model::{self, DeploymentKind, Function, FunctionId, FunctionName, Percent, VersionLabel},
    protocol::message::{DeployRequest, DeployResponse, RegisterRequest},
    router::{Entry, Versions},
    store::AliasChange,
};
use publish::{not_built, publish};
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
        None => movable_alias(request.alias.as_deref())?,
    };
    check_fields(&request)?;
    let claim = match idempotency::begin(context, &mut request, caller).await? {
        Begun::Answered(answer) => return Ok(*answer),
        Begun::Claimed(claim) => Some(claim),
        Begun::Plain => None,
    };
    let label = request.version.take().map(|label| label.parse::<VersionLabel>()).transpose()?;
    let code = source(&mut request, caller)?;
    let weight = request.weight.map(|it| Percent::try_from(it).map_err(|error| Error::invalid(error.to_string())));
    let wanted = AliasMove {
        environment: preview.as_ref().map(|it| it.environment.clone()),
        weight: weight.transpose()?,
        change: AliasChange { lifetime: preview.as_ref().map(|it| it.lifetime), ..AliasChange::default() },
        ..AliasMove::new(DeploymentKind::Deploy, alias, caller, request.reason.clone())
    };
    let order =
        Order { context: Arc::clone(context), wanted, code, label, preview, claim, request, log: Arc::new(log) };
    context.until_cancelled(caller, |cancellation| order.run(cancellation)).await
}

/// A valid deployment whose code is still to be prepared.
struct Order {
    context: Arc<Context>,
    wanted: AliasMove,
    code: Option<Code>,
    label: Option<VersionLabel>,
    preview: Option<Preview>,
    claim: Option<Arc<Claim>>,
    /// The other fields of the request.
    request: DeployRequest,
    log: Arc<BuildLog>,
}

impl Order {
    async fn run(self, cancellation: Cancellation) -> Result<DeployResponse, Error> {
        if self.request.dry_run {
            return match self.function_to_make()? {
                Some(function) => self.rehearse_for(function, cancellation).await,
                None => {
                    let id = self.context.router.function(&self.request.function_id)?.function.id;
                    self.carry_out(id, false, cancellation).await
                }
            };
        }
        let running = Running::begin(&self).await?;
        let outcome = self.carry_out(running.row.function_id, running.new_function, cancellation).await;
        running.end(outcome.as_ref().err()).await;
        outcome
    }

    /// The function that the deployment creates, if it does not exist and the request allows that.
    fn function_to_make(&self) -> Result<Option<Function>, Error> {
        let (name, context) = (&self.request.function_id, &self.context);
        let is_new = context.router.function(name).is_err();
        // A text that reads as an id cannot be the name of a new function.
        if !is_new || !self.request.create || self.code.is_none() || name.parse::<FunctionId>().is_ok() {
            return Ok(None);
        }
        name.parse::<FunctionName>().map_err(|error| Error::invalid(error.to_string()))?;
        register::function(context, RegisterRequest { name: name.clone(), ..RegisterRequest::default() }).map(Some)
    }

    /// Dry run for a function that does not exist yet.
    async fn rehearse_for(mut self, function: Function, cancellation: Cancellation) -> Result<DeployResponse, Error> {
        let code = self.prepare(&cancellation).await;
        let (context, entry) = (Arc::clone(&self.context), Arc::new(without_versions(function)));
        self.deploy(Placement { context, entry, cancellation }, code, true).await
    }

    /// Prepares the code, then takes the function's change lock and deploys.
    async fn carry_out(
        mut self,
        id: FunctionId,
        new_function: bool,
        cancellation: Cancellation,
    ) -> Result<DeployResponse, Error> {
        let (context, claim) = (Arc::clone(&self.context), self.claim.clone());
        let _preparing = match &self.code {
            Some(_) => Some(cancellation.run(context.locks.preparing.lock(id)).await?),
            None => None,
        };
        let code = self.prepare(&cancellation).await;
        let (_changing, entry) = cancellation.run(context.hold(id)).await??;
        if let Some(preview) = &self.preview {
            preview.check_room(&context, &entry)?;
            check_environment(&context, id, &preview.alias, preview.environment.clone()).await?;
        }
        let answer = self.deploy(Placement { context, entry, cancellation }, code, new_function).await?;
        if let Some(claim) = claim {
            claim.keep(&answer).await?;
        }
        Ok(answer)
    }

    /// Stages the code, if there is any.
    async fn prepare(&mut self, cancellation: &Cancellation) -> Option<Result<Prepared, NotPrepared>> {
        let options = SourceOptions { entry: self.request.entry.clone(), build: self.request.build };
        Some(build::prepare(&self.context, self.code.take()?, options, &self.log, cancellation).await)
    }

    async fn deploy(
        self,
        placement: Placement,
        code: Option<Result<Prepared, NotPrepared>>,
        new_function: bool,
    ) -> Result<DeployResponse, Error> {
        placement.check_capacity()?;
        let Self { wanted, label, claim, request, .. } = self;
        let delivery = Delivery {
            stays: request.activate == Some(false),
            warm: request.warm.unwrap_or(0),
            new_function,
            claim,
            ..Delivery::default()
        };
        match (code, label) {
            (Some(Ok(code)), label) => publish(&placement, wanted, delivery, code, label, request).await,
            (Some(Err(failed)), _) if request.dry_run => Err(failed.error),
            (Some(Err(failed)), label) => Err(not_built(&placement, &wanted, failed, label).await),
            (None, Some(label)) => {
                let entry = &placement.entry;
                let version = entry.labelled(label.as_str()).ok_or_else(|| entry.version_not_found(label.as_str()))?;
                wanted.check_share(entry, Some(version.id))?;
                placement.apply_delivered(wanted, Arc::clone(version), delivery, request.dry_run).await
            }
            (None, None) => Err(Error::invalid(
                "nothing to deploy: give `bundle_path`, `bundle`, `files` or `archive`, or the `version` to re-activate",
            )),
        }
    }
}

fn without_versions(function: Function) -> Entry {
    Entry { function, versions: Versions::default(), aliases: Vec::new(), approved: None }
}

/// Source of the code, and its kind for the record.
type Code = (Source, model::VersionSource);

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
