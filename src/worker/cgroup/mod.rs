//! Control groups of workers: kernel limits on a worker and everything it starts, for memory, processes and processor.
//!
//! [`Cgroups::find`] prepares a place for the groups once, in version 2 ([`v2`]) or version 1 ([`v1`]) of the kernel's
//! interface; [`Cgroups::group`] creates one [`ControlGroup`] for each worker. An unprivileged process in the group
//! ([`ControlGroup::entries`], [`ControlGroup::add`]) cannot leave it, nor can its descendants.
//!
//! Groups of workers are siblings of the daemon's own: a worker has the weight of an ordinary process, and one of low
//! priority an eighth of it, against the daemon and every process beside it. No group covers all workers of a node.
//!
//! **Invariants.** The groups of a daemon begin with its name and a dot. A group is removed when its [`ControlGroup`] is
//! dropped, as soon as the last of its processes is dead, by one thread that the last [`ControlGroup`] or [`Cgroups`] waits
//! for (two seconds at most). Groups of a killed daemon are killed and removed by the next daemon of that name in the
//! same group. Without such a daemon, any other daemon there removes the empty ones; with version 1 also from groups
//! beside its own. Nothing else of another daemon is touched.
//!
//! The memory limit counts private memory, page tables and other kernel memory, files in memory (tmpfs), and cached
//! pages of files, for the group that has read or written them *first*; the kernel reclaims cached pages before it
//! kills. A dead group keeps some kernel memory until the last page charged to it is gone, so the daemon should be the
//! first to read files that outlive a worker, such as the runtime.

mod group;
mod place;
mod remove;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub(crate) use group::ControlGroup;

use place::CgroupPaths;
use remove::{Directories, Remover};
use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Prefix of every daemon's name.
const NAME_PREFIX: &str = "levain-";

/// The two versions of the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupVersion {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy for all controllers.
    V2,
}

/// The resources that are limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Controllers {
    /// Bytes of memory.
    pub(crate) memory: bool,
    /// Processes and threads.
    pub(crate) pids: bool,
    /// Share of the processor.
    pub(crate) cpu: bool,
}

/// The version and controllers that [`Cgroups::find`] found; displayed as a part of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Support {
    pub(crate) version: CgroupVersion,
    pub(crate) controllers: Controllers,
}

/// Limits of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupLimits {
    /// Bytes of memory; beyond them the kernel kills one of its processes, with version 2 all. Nothing is swapped out.
    pub(crate) memory_max: u64,
    /// Processes and threads together.
    pub(crate) processes_max: u64,
}

/// Reason why workers cannot have control groups, and the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// No usable hierarchy is mounted.
    #[error("no control groups for memory, processes or the processor are mounted where this process can see them")]
    NotMounted,
    /// Version 2, and the parent group hands down no controllers.
    #[error(
        "the control group {} has none of the controllers memory, pids and cpu; start the daemon as a systemd service \
         or scope with Delegate=yes", .group.display()
    )]
    NoControllers {
        /// The daemon's own group.
        group: PathBuf,
    },
    /// The groups cannot be created, mostly for lack of permission.
    #[error(
        "cannot make control groups in {}: {source}; start the daemon as a systemd service or scope with Delegate=yes, \
         or as root", .group.display()
    )]
    NotWritable {
        /// The daemon's own group.
        group: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Version 2, and the daemon is not alone in its group.
    #[error(
        "{process} shares the control group {} with the daemon; give it one of its own, by a systemd service or by \
         `systemd-run --scope -p Delegate=yes` (as a user with `--user`)", .group.display()
    )]
    Shared {
        /// The daemon's own group.
        group: PathBuf,
        /// Another process in the group.
        process: String,
    },
    /// An error that is not about control groups.
    #[error("cannot look for control groups: {0}")]
    Io(#[from] io::Error),
}

/// The control groups of one daemon, found and prepared once at its start.
#[derive(Debug)]
pub(crate) struct Cgroups {
    version: CgroupVersion,
    /// Hierarchies, never empty. A process enters the group in the first one first.
    trees: Vec<Tree>,
    name: String,
    /// Number of the next group, so that it is never confused with one of the same slot that is still being removed.
    next: AtomicU64,
    remover: Arc<Remover>,
}

/// A hierarchy, with the group below which those of workers are created.
#[derive(Debug)]
struct Tree {
    base: PathBuf,
    controllers: Controllers,
    /// Whether swap is accounted for: `memory.swap.max`, `memory.memsw.limit_in_bytes`.
    has_swap: bool,
}

impl Cgroups {
    /// Finds the controllers that this process may use, and removes what an earlier daemon of that name has left.
    ///
    /// Each of `wanted` costs something: on a round trip of 9 µs between a worker and a process outside, memory and
    /// pids were 1 µs, and cpu, for its longer way through the scheduler, another 1 µs.
    ///
    /// `name` begins with `levain-`, contains no dot, and is unique among the daemons in the same group. With version 2
    /// this may move the process, with those it has started, into a group below its own. Blocks for about a
    /// millisecond; with left-overs until their processes are dead.
    ///
    /// # Errors
    /// See [`Unavailable`]; nothing is left behind, except that the process may have been moved.
    pub(crate) fn find(name: &str, wanted: Controllers) -> Result<Self, Unavailable> {
        let places =
            CgroupPaths::parse(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string("/proc/self/cgroup")?);
        Self::find_in(&places, name, wanted)
    }

    fn find_in(places: &CgroupPaths, name: &str, wanted: Controllers) -> Result<Self, Unavailable> {
        let v2 = places.v2.as_ref().map_or(Err(Unavailable::NotMounted), |place| v2::find(place, name, wanted));
        let (version, trees) = match v2 {
            Ok(tree) => (CgroupVersion::V2, vec![tree]),
            // If both are mounted, version 1 mostly has the controllers, and version 2 none.
            Err(error) => match v1::find(&places.v1, name, wanted) {
                Err(Unavailable::NotMounted) => return Err(error),
                found => (CgroupVersion::V1, found?),
            },
        };
        let prefix = format!("{name}.");
        let left: usize = trees.iter().map(|tree| remove::remove_all(&tree.base, &prefix)).sum();
        let forgotten = trees.iter().map(|tree| {
            remove::remove_forgotten(&tree.base, remove::FORGOTTEN_AFTER)
                + match version {
                    CgroupVersion::V1 => remove::remove_beside(&tree.base, remove::FORGOTTEN_AFTER),
                    CgroupVersion::V2 => 0,
                }
        });
        let forgotten: usize = forgotten.sum();
        if forgotten > 0 {
            tracing::info!(groups = forgotten, "removed empty control groups that other daemons had left behind");
        }
        if left > 0 {
            tracing::info!(groups = left, "removed control groups that an earlier daemon had left behind");
        }
        Ok(Self::new(version, trees, name)?)
    }

    fn new(version: CgroupVersion, trees: Vec<Tree>, name: &str) -> io::Result<Self> {
        let remover = Arc::new(Remover::start()?);
        Ok(Self { version, trees, name: name.to_owned(), next: AtomicU64::new(1), remover })
    }

    /// Describes the version and the controllers in use.
    pub(crate) fn describe(&self) -> Support {
        let mut controllers = Controllers::default();
        for name in self.trees.iter().flat_map(|tree| tree.controllers.names()) {
            controllers.add(name);
        }
        Support { version: self.version, controllers }
    }

    /// Creates a group for one worker. `slot` is for the reader of a listing, and may be reused at once.
    ///
    /// Blocks for a tenth of a millisecond or two, a third of it for the memory controller's new folder.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is left behind.
    pub(crate) fn group(&self, slot: &str, limits: &GroupLimits) -> io::Result<ControlGroup> {
        let name = format!("{}.{slot}.{}", self.name, self.next.fetch_add(1, Ordering::Relaxed));
        ControlGroup::new(self.version, &self.trees, &name, limits, Arc::clone(&self.remover))
    }
}

impl Controllers {
    /// Every controller.
    pub(crate) const ALL: Self = Self { memory: true, pids: true, cpu: true };

    /// Returns the controllers of `self` that are named.
    fn among<'a>(self, names: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        names.for_each(|name| found.add(name));
        let (memory, pids, cpu) = (self.memory && found.memory, self.pids && found.pids, self.cpu && found.cpu);
        Self { memory, pids, cpu }
    }

    fn add(&mut self, name: &str) {
        match name {
            "memory" => self.memory = true,
            "pids" => self.pids = true,
            "cpu" => self.cpu = true,
            _ => {}
        }
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [("memory", self.memory), ("pids", self.pids), ("cpu", self.cpu)];
        all.into_iter().filter_map(|(name, is_present)| is_present.then_some(name))
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.version == CgroupVersion::V1 { "v1" } else { "v2" };
        let names: Vec<_> = self.controllers.names().collect();
        write!(f, "cgroup {version} ({})", names.join(", "))
    }
}

/// Creates a group and removes it again, to check that this works and which files the kernel offers in it.
fn make_probe(base: &Path, name: &str, version: CgroupVersion, controllers: Controllers) -> io::Result<Tree> {
    let probe = base.join(format!("{name}.probe"));
    make_dir(&probe)?;
    let has = |file| probe.join(file).exists();
    let (swap, memory) = match version {
        CgroupVersion::V1 => ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes"),
        CgroupVersion::V2 => ("memory.swap.max", "memory.max"),
    };
    let is_usable = has("cgroup.procs") && (!controllers.memory || has(memory));
    let tree = Tree { base: base.into(), controllers, has_swap: has(swap) };
    fs::remove_dir(&probe)?;
    if is_usable { Ok(tree) } else { Err(io::Error::new(io::ErrorKind::Unsupported, "its files are missing")) }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Writes a value into a kernel file, which takes it in one call or not at all.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
