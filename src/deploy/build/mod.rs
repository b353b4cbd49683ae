//! From a project to a bundle: its packages are installed and its entry is built, each in a throw-away process.
//!
//! ```text
//! Source::open ─▶ project? ─no──────────────────────────────────▶ stage
//!                    │ yes                                          ▲
//!                    └▶ stage ─▶ Workplace ─▶ install ─▶ build ─────┘
//!                                             network    none
//! ```
//!
//! Both processes are confined as workers are. The code of the project runs in one place only: as a macro, while it is
//! built. Neither its `bunfig.toml` nor scripts of its packages are read or run.

mod error;
mod log;
mod packages;
pub(super) mod project;
mod steps;

pub use error::{BuildError, Step};
pub use log::BuildLog;
use packages::Packages;
pub use project::{Project, Wanted};

use crate::{
    bundle::{Content, Staged},
    config::BuildConfig,
    worker::{Spawner, Workplace, WorkplaceLimits},
};
use packages::Kept;
use std::{io, path::PathBuf};
use steps::Run;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

/// Builds what is no bundle yet, a few at once.
#[derive(Debug)]
pub struct Builder {
    turns: Semaphore,
    packages: Packages,
}

/// What a build has made; its files go with it.
#[derive(Debug)]
pub struct Built<'a> {
    /// The files of the bundle.
    pub files: Vec<(String, Content)>,
    /// The one to import.
    pub entry: String,
    _place: Workplace<'a>,
    _kept: Option<Kept>,
}

impl Builder {
    /// Keeps packages in this folder, and builds so many projects at once.
    pub fn open(packages: PathBuf, builds_max: usize) -> io::Result<Self> {
        Ok(Self { turns: Semaphore::new(builds_max), packages: Packages::open(packages)? })
    }

    /// Builds a project whose files are staged. What is said meanwhile is in the log, whatever becomes of it.
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
