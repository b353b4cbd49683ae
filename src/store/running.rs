//! Running deployments: each has a row with the status `building`, which its final row replaces.
//!
//! A function created by such a deployment is provisional: it is deleted when the last of its deployments fails, unless
//! somebody registers or changes it meanwhile. Its row stays for the audit trail, as for any deleted function.

use super::{Store, StoreError, deployments, functions};
use crate::crash_point::crash_point;
use crate::model::{Deployment, DeploymentId, DeploymentStatus, Function, FunctionId, FunctionName, Timestamp};
use rusqlite::Connection;

/// Audit text of a deployment whose daemon ended before the deployment did.
const INTERRUPTED: &str = "interrupted: the daemon ended while the deployment was running; nothing was changed";

impl Store {
    /// Records that a deployment runs, and creates its function first if that is new ([`StoreError::NameTaken`],
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

    /// Ends a deployment that has committed nothing. `failed` is the row to write, if the failure is worth one. A
    /// deployment that has already ended stays as it is. Returns whether its function was deleted with it.
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

    /// Marks the deployments left running by a killed daemon as failed. Must be called while no deployment runs.
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

    /// Keeps this function even if the deployment that created it fails ([`StoreError::FunctionNotFound`] if it is
    /// already gone).
    pub fn claim_function(&self, id: FunctionId) -> Result<(), StoreError> {
        self.write(|it| functions::claim(it, id))
    }

    /// Returns a function's name, also of a deleted one.
    pub fn function_name(&self, id: FunctionId) -> Result<FunctionName, StoreError> {
        self.read(|it: &Connection| functions::name(it, id))
    }
}
