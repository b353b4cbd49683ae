//! Settings that workers are made from.

use crate::{
    bundle::Compiled,
    model::{Digest, EnvironmentName, FunctionId, FunctionName, Network, VersionLabel},
    secrets::{VariableRevisions, Variables},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Everything that the workers of one pool have in common.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The function's id.
    pub function_id: FunctionId,
    /// The function's name.
    pub function: FunctionName,
    /// The version that the workers run.
    pub version: VersionLabel,
    /// The environment that the workers run in.
    pub environment: EnvironmentName,
    /// Content digest of the bundle.
    pub digest: Digest,
    /// Folder of the bundle.
    pub bundle: PathBuf,
    /// File in the bundle that the workers import.
    pub entry: String,
    /// Compiled bytecode, imported instead of `entry` once it exists.
    pub compiled: Compiled,
    /// The export that the workers call.
    pub handler: String,
    /// Current limit of a worker's private memory, in bytes.
    pub memory_max: Arc<AtomicU64>,
    /// Network access of workers that start now.
    pub network: SharedNetwork,
    /// Source of the variables for workers that start now.
    pub variables: Variables,
}

impl Blueprint {
    /// Whether a worker with these variables would get the same ones now.
    #[must_use]
    pub fn has_current_variables(&self, revisions: &VariableRevisions) -> bool {
        self.variables.is_current(revisions, self.function_id, &self.environment)
    }
}

/// Current network setting of a function, shared by its pool and its workers' starts.
#[derive(Debug, Clone)]
pub struct SharedNetwork(Arc<AtomicBool>);

impl SharedNetwork {
    /// Creates the setting with an initial value.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self(Arc::new(AtomicBool::new(network == Network::On)))
    }

    /// Returns the current value.
    #[must_use]
    pub fn get(&self) -> Network {
        if self.0.load(Ordering::Relaxed) { Network::On } else { Network::Off }
    }

    /// Changes the value; returns whether it was different.
    pub fn set(&self, network: Network) -> bool {
        let is_on = network == Network::On;
        self.0.swap(is_on, Ordering::Relaxed) != is_on
    }
}

/// Limits on starts and on the output of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnLimits {
    /// Time from the spawn until the function must be loaded.
    pub start_timeout: Duration,
    /// Bytes to which a log line is cut.
    pub line_bytes_max: usize,
    /// Log lines of one worker that are kept per second.
    pub lines_per_second_max: u32,
    /// Prewarmed processes to keep ready.
    pub prewarmed_workers: usize,
}
