//! Loading of a version where it is to run.

use super::Act;
use crate::{
    commands::shutting_down,
    error::{Error, ErrorCode},
    model::Version,
    router::Entry,
    worker::Blueprint,
};

impl Act {
    /// Prepares workers of the version: at least one, which proves that the bundle loads.
    pub(super) async fn warm(&self, entry: &Entry, version: &Version, warm: u32) -> Result<(), Error> {
        if !self.is_approved && self.needs_approval(entry, version).await? {
            return self.cancellation.run(self.load_without_secrets(entry, version)).await?;
        }
        let pool = self.context.pool(entry, version, &self.environment(entry));
        let warmed = self.cancellation.run(pool.warm(self.count(entry, warm) as usize)).await?;
        match warmed.failure {
            Some(failure) => Err(failure.as_ref().into()),
            None if warmed.closed => Err(shutting_down()),
            None if warmed.ready == 0 => {
                let reason = match warmed.planned {
                    0 => "no worker of the version could be started; try again",
                    _ => {
                        "no worker of the version could be started: all places of the node (workers.workers_max) or its \
                         memory are taken by busy and warm workers; try again, or raise them"
                    }
                };
                Err(Error::new(ErrorCode::WorkerUnavailable, reason))
            }
            None => Ok(()),
        }
    }

    async fn needs_approval(&self, entry: &Entry, version: &Version) -> Result<bool, Error> {
        let (row, id) = (self.row(entry, version), version.id);
        self.context.blocking(move |context| Ok(context.store.needs_approval(&row, Some(id))?)).await
    }

    /// Loads a version that is not approved for the environment yet, in a worker that takes no invocations: code that
    /// runs during the load must not have the environment's secrets.
    async fn load_without_secrets(&self, entry: &Entry, version: &Version) -> Result<(), Error> {
        let variables = self.context.variables.without_secrets();
        let blueprint = Blueprint { variables, ..self.context.blueprint(entry, version, &self.environment(entry)) };
        self.context.scheduler.spawner().rehearse(&blueprint).await.map(drop).map_err(|error| (&error).into())
    }
}
