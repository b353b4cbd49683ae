//! Errors of starting a worker, and of preparing the spawner.

use super::{exit::Exit, launch::LaunchError};
use crate::{bundle::BundleError, protocol::worker::LoadError, secrets::SecretError};
use std::{io, time::Duration};

/// Reason why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be created.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The worker's folder, socket or pipes could not be created.
    #[error("cannot prepare a worker: {0}")]
    Prepare(#[from] io::Error),
    /// The bundle could not be imported.
    #[error("the bundle cannot be loaded: {}", .error.message)]
    Load {
        /// Error of the import.
        error: Box<LoadError>,
        /// The last lines that the worker wrote.
        boot_log: Vec<String>,
    },
    /// The process ended before the function was loaded.
    #[error("the worker ended while it was starting: {0}")]
    Exited(Exit),
    /// The function was not loaded in time.
    #[error("the worker was not ready after {} ms", .after.as_millis())]
    Timeout {
        /// The time limit.
        after: Duration,
        /// The last lines that the worker wrote.
        boot_log: Vec<String>,
    },
    /// The bundle differs from what was published.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A secret of the function cannot be opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The worker sent something the protocol does not allow.
    #[error("the worker broke the protocol: {0}")]
    Protocol(String),
}

impl StartError {
    /// Lines that the worker wrote before it failed.
    #[must_use]
    pub fn boot_log(&self) -> &[String] {
        match self {
            Self::Load { boot_log, .. } | Self::Timeout { boot_log, .. } => boot_log,
            Self::Exited(exit) => &exit.last_words,
            Self::Launch(_) | Self::Prepare(_) | Self::Bundle(_) | Self::Secret(_) | Self::Protocol(_) => &[],
        }
    }
}

/// Reason why no worker can be started at all.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// The launching thread or the folder of workers could not be created.
    #[error("cannot prepare the workers: {0}")]
    Io(#[from] io::Error),
    /// The machine lacks room for a level of isolation that it may well offer.
    #[error(
        "cannot prepare workers of the isolation level {level}: {source}: make room and start again; a lower level is \
         used only where the machine does not offer this one"
    )]
    NoRoom {
        /// Name of the level.
        level: &'static str,
        /// Error of the system.
        source: io::Error,
    },
    /// `sandbox.mode` is strict, and no permitted level works.
    #[error(
        "functions cannot be isolated as sandbox.mode = \"strict\" demands: {}; or set sandbox.mode to \"auto\"",
        .missing.join("; ")
    )]
    NoSandbox {
        /// Requirements that are not met.
        missing: Vec<String>,
    },
}
