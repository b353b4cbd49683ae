//! Deployments that run: each has a row with the status `building` until the row of its end replaces it.
//!
//! A function that such a deployment has made is provisional: it goes with the last deployment of it that fails, unless
//! somebody registers or changes it meanwhile. Its row stays for the audit trail, as that of any deleted function does.

use super::{Store, StoreError, deployments, functions};
use crate::crash_point::crash_point;
use crate::model::{Deployment, DeploymentId, DeploymentStatus, Function, FunctionId, FunctionName, Timestamp};
use rusqlite::Connection;

/// What the audit trail says of a deployment whose daemon ended before it did.
const INTERRUPTED: &str = "interrupted: the daemon ended while the deployment was running; nothing was changed";

impl Store {
    /// Writes that a deployment runs, and makes its function first where that is new ([`StoreError::NameTaken`],
    /// [`StoreError::FunctionNotFound`]).
    pub fn begin_deployment(&self, running: &Deployment, new: Option<&Function>) -> Result<(), StoreError> {
        self.write_between_steps(|it| {
            if let Some(function) = new {
                functions::insert(it, function)?;
                functions::set_provisional(it, function.id)?;
            }
            functions::one(it, running.function_id)?;
            deployments::insert(it, running, None)
        })?;
        crash_point("deployment.begun");
        Ok(())
    }

    /// Ends a deployment that has committed nothing: as failed where that is worth a row, else without a trace. One whose
    /// end is written already stays as it is. The answer is whether its function went with it.
    pub fn end_deployment(
        &self,
        function_id: FunctionId,
        id: DeploymentId,
        failed: Option<&Deployment>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_between_steps(|it| {
            if deployments::remove_running(it, id)?
                && let Some(failed) = failed
            {
                deployments::insert(it, failed, None)?;
            }
            functions::remove_provisional(it, function_id, now)
        })
    }

    /// Ends what a daemon that was killed has left running, as failed. To be called while nothing runs.
    pub fn end_interrupted_deployments(&self, now: Timestamp) -> Result<Vec<Deployment>, StoreError> {
        self.write_between_steps(|it| {
            let running = deployments::running(it)?;
            let mut ended = Vec::with_capacity(running.len());
            for running in running {
                let build_log = Some(INTERRUPTED.to_owned());
                let failed = Deployment { status: DeploymentStatus::Failed, build_log, finished_at: now, ..running };
                deployments::remove_running(it, failed.id)?;
                deployments::insert(it, &failed, None)?;
                ended.push(failed);
            }
            for function_id in functions::provisional(it)? {
                functions::remove_provisional(it, function_id, now)?;
            }
            Ok(ended)
        })
    }

    /// Says that somebody wants this function whatever becomes of the deployment that made it
    /// ([`StoreError::FunctionNotFound`] if it is gone already).
    pub fn claim_function(&self, id: FunctionId) -> Result<(), StoreError> {
        self.write(|it| functions::claim(it, id))
    }

    /// What a function is called, or was before it was deleted.
    pub fn function_name(&self, id: FunctionId) -> Result<FunctionName, StoreError> {
        self.read(|it: &Connection| functions::name(it, id))
    }
}
