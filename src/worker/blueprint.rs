//! What a worker is made of.

use crate::{
    bundle::Compiled,
    model::{Digest, EnvironmentName, FunctionId, FunctionName, Network, VersionLabel},
    secrets::{Variables, Worn},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// What the workers of one pool are made of.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The function's id.
    pub function_id: FunctionId,
    /// The function's name.
    pub function: FunctionName,
    /// The version they run.
    pub version: VersionLabel,
    /// The environment they run in.
    pub environment: EnvironmentName,
    /// What its bundle hashes to.
    pub digest: Digest,
    /// The folder of its bundle.
    pub bundle: PathBuf,
    /// The file in it that they import.
    pub entry: String,
    /// What they import instead, once it is there.
    pub compiled: Compiled,
    /// The export they call.
    pub handler: String,
    /// Bytes of private memory one of them may have, at present.
    pub memory_max: Arc<AtomicU64>,
    /// Whether one that starts now reaches the network.
    pub network: SharedNetwork,
    /// Where one that starts now gets its variables from.
    pub variables: Variables,
}

impl Blueprint {
    /// Whether a worker that has these variables would get the same ones now.
    #[must_use]
    pub fn has_still(&self, worn: &Worn) -> bool {
        self.variables.still(worn, self.function_id, &self.environment)
    }
}

/// A function's setting as it is at present.
#[derive(Debug, Clone)]
pub struct SharedNetwork(Arc<AtomicBool>);

impl SharedNetwork {
    /// One that starts as this.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self(Arc::new(AtomicBool::new(network == Network::On)))
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> Network {
        if self.0.load(Ordering::Relaxed) { Network::On } else { Network::Off }
    }

    /// Changes it; returns whether it was different.
    pub fn set(&self, network: Network) -> bool {
        let is_on = network == Network::On;
        self.0.swap(is_on, Ordering::Relaxed) != is_on
    }
}

/// What bounds starts and the output of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnLimits {
    /// From the spawn until the function is loaded.
    pub start_timeout: Duration,
    /// A log line is cut to this many bytes.
    pub line_bytes_max: usize,
    /// Log lines of one worker that are kept in a second.
    pub lines_per_second_max: u32,
    /// Processes that wait for a function.
    pub prewarmed_workers: usize,
}
