//! Builds a project into a bundle: installs its packages and builds its entry, each in a disposable process.
//!
//! ```text
//! Source::open ─▶ project? ─no──────────────────────────────────▶ stage
//!                    │ yes                                          ▲
//!                    └▶ stage ─▶ Workplace ─▶ install ─▶ build ─────┘
//!                                             network    none
//! ```
//!
//! Both processes are confined like workers. Code of the project runs only as a macro, during the build. The project's
//! `bunfig.toml` is not read, and scripts of its packages are not run.

mod error;
mod log;
mod packages;
mod steps;

pub use error::{BuildError, BuildStep};
pub use log::BuildLog;
use packages::Packages;

use super::Project;
use crate::{
    bundle::{Content, Staged},
    config::BuildConfig,
    worker::{Spawner, Workplace, WorkplaceLimits},
};
use packages::CachedPackages;
use std::{io, path::PathBuf};
use steps::Run;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

/// Builds projects, a few at a time.
#[derive(Debug)]
pub struct Builder {
    turns: Semaphore,
    packages: Packages,
}

/// Result of a build. Dropping it removes the files.
#[derive(Debug)]
pub struct Built<'a> {
    /// Files of the bundle.
    pub files: Vec<(String, Content)>,
    /// File to import.
    pub entry: String,
    _place: Workplace<'a>,
    _kept: Option<CachedPackages>,
}

impl Builder {
    /// Creates a builder that keeps packages in this folder and runs up to `builds_max` builds at once.
    pub fn open(packages: PathBuf, builds_max: usize) -> io::Result<Self> {
        Ok(Self { turns: Semaphore::new(builds_max), packages: Packages::open(packages)? })
    }

    /// Builds a project whose files are staged. The log holds the output, even if the build fails.
    pub async fn build<'a>(
        &self,
        spawner: &'a Spawner,
        sources: &Staged,
        project: &Project,
        config: &BuildConfig,
        log: &BuildLog,
        stopping: &CancellationToken,
    ) -> Result<Built<'a>, BuildError> {
        let building = async {
            let _turn = match self.turns.try_acquire() {
                Ok(turn) => turn,
                Err(_) => {
                    log.say("waiting for other builds");
                    self.turns.acquire().await.expect("nobody closes the semaphore")
                }
            };
            let limits = WorkplaceLimits {
                memory_max: u64::from(config.memory_mb) << 20,
                processes_max: config.processes_max,
                disk_max: u64::from(config.disk_mb) << 20,
            };
            let place = spawner.workplace(limits)?;
            let deadline = Instant::now() + config.timeout();
            let run = Run { spawner, place: &place, sources, project, config, log, deadline };
            let kept = match &project.lockfile {
                Some(lockfile) => run.install(&self.packages, lockfile).await?,
                None => {
                    run.fill().await?;
                    None
                }
            };
            let files = run.bundle(kept.as_ref()).await?;
            Ok(Built { files, entry: crate::protocol::worker::BUNDLE_FILE.into(), _place: place, _kept: kept })
        };
        let built = stopping.run_until_cancelled(building).await.unwrap_or(Err(BuildError::Stopped));
        if let Err(error) = &built {
            error.lines().for_each(|line| log.say(&line));
        }
        built
    }
}
