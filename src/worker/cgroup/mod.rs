//! Control groups of workers: what the kernel lets a worker and all it starts have of memory, processes and processor.
//!
//! [`Cgroups::find`] prepares a place for the groups once, in version 2 ([`v2`]) or in version 1 ([`v1`]) of the
//! kernel's interface; [`Cgroups::group`] makes one [`Group`] for each worker. A process that is in it ([`Group::entries`],
//! [`Group::add`]) and has no privileges cannot leave it, nor can what it starts.
//!
//! Groups of workers lie directly beside the daemon's own: a worker has the weight of an ordinary process, and one of
//! low priority an eighth of it, against the daemon as well, and every process beside it. Nothing sums up the workers of a node.
//!
//! **Invariants.** Groups of a daemon begin with its name and a dot. A group is removed when its [`Group`] is dropped, as
//! soon as the last of its processes is dead, by one thread that the last [`Group`] or [`Cgroups`] waits for (two seconds
//! at most). What a daemon leaves behind that was killed, the next one of that name in the same group kills and removes;
//! if there is none, then any other daemon there removes what is empty; with version 1 also where such a daemon was in a
//! group beside its own. Nothing else of another daemon is touched.
//!
//! What the limit on memory counts: private memory, page tables and other memory of the kernel, files in memory (tmpfs),
//! and cached pages of files, for the group that has read or written them *first*; those the kernel takes back before it
//! kills. A dead group keeps some of the kernel's memory until the last page it was charged with is gone: so files that
//! outlive a worker, such as the runtime, are best read by the daemon first.

mod group;
mod place;
mod remove;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub(crate) use group::Group;

use place::Places;
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

/// The names of all daemons begin so.
const NAME_PREFIX: &str = "levain-";

/// The two interfaces of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy for all of them.
    V2,
}

/// What of a worker is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Controllers {
    /// Bytes of memory.
    pub(crate) memory: bool,
    /// Processes and threads.
    pub(crate) pids: bool,
    /// Its share of the processor.
    pub(crate) cpu: bool,
}

/// What [`Cgroups::find`] has found; as text a part of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Support {
    pub(crate) version: Version,
    pub(crate) controllers: Controllers,
}

/// What a worker may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of memory; more of it ends one of its processes, with version 2 all of them. Nothing is swapped out.
    pub(crate) memory_max: u64,
    /// Processes and threads together.
    pub(crate) processes_max: u64,
}

/// Why workers cannot have control groups, and how to get them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// There is nothing of the kind.
    #[error("no control groups for memory, processes or the processor are mounted where this process can see them")]
    NotMounted,
    /// Version 2, and the group above keeps all for itself.
    #[error(
        "the control group {} is handed none of memory, pids and cpu; start the daemon as a systemd service or scope \
         with Delegate=yes", .group.display()
    )]
    NoControllers {
        /// The daemon's own.
        group: PathBuf,
    },
    /// Not permitted, mostly.
    #[error(
        "cannot make control groups in {}: {source}; start the daemon as a systemd service or scope with Delegate=yes, \
         or as root", .group.display()
    )]
    NotWritable {
        /// The daemon's own.
        group: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Version 2, and the daemon is not alone.
    #[error(
        "{process} shares the control group {} with the daemon; give it one of its own, by a systemd service or by \
         `systemd-run --scope -p Delegate=yes` (as a user with `--user`)", .group.display()
    )]
    Shared {
        /// The daemon's own.
        group: PathBuf,
        /// Who else is in it.
        process: String,
    },
    /// Not about control groups.
    #[error("cannot look for control groups: {0}")]
    Io(#[from] io::Error),
}

/// The control groups of one daemon; found and prepared once, at its start.
#[derive(Debug)]
pub(crate) struct Cgroups {
    version: Version,
    /// Never empty. The first is the one whose group a process enters first.
    trees: Vec<Tree>,
    name: String,
    /// So that a group is never taken for one of the same slot that is still being removed.
    next: AtomicU64,
    remover: Arc<Remover>,
}

/// A hierarchy, at the group in which those of workers are made.
#[derive(Debug)]
struct Tree {
    base: PathBuf,
    controllers: Controllers,
    /// Whether swapped memory is accounted for: `memory.swap.max`, `memory.memsw.limit_in_bytes`.
    has_swap: bool,
}

impl Cgroups {
    /// Finds the controllers this process may use, and removes what an earlier daemon of that name has left.
    ///
    /// Each of `wanted` costs something: on a round trip of 9 µs between a worker and a process outside, memory and pids
    /// were 1 µs, and cpu, for its longer way through the scheduler, another 1 µs.
    ///
    /// `name` begins with `levain-`, has no dot in it, and is that of no other daemon in the same group. With version 2 this may move
    /// the process, with those it has started, into a group below its own. Blocks for about a millisecond; with
    /// left-overs until their processes are dead.
    ///
    /// # Errors
    /// See [`Unavailable`]; nothing is left behind, except that the process may have been moved.
    pub(crate) fn find(name: &str, wanted: Controllers) -> Result<Self, Unavailable> {
        let places =
            Places::parse(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string("/proc/self/cgroup")?);
        Self::find_in(&places, name, wanted)
    }

    fn find_in(places: &Places, name: &str, wanted: Controllers) -> Result<Self, Unavailable> {
        let v2 = places.v2.as_ref().map_or(Err(Unavailable::NotMounted), |place| v2::find(place, name, wanted));
        let (version, trees) = match v2 {
            Ok(tree) => (Version::V2, vec![tree]),
            // With both mounted, the controllers are mostly those of version 1, and version 2 has none.
            Err(error) => match v1::find(&places.v1, name, wanted) {
                Err(Unavailable::NotMounted) => return Err(error),
                found => (Version::V1, found?),
            },
        };
        let prefix = format!("{name}.");
        let left: usize = trees.iter().map(|tree| remove::remove_all(&tree.base, &prefix)).sum();
        let forgotten = trees.iter().map(|tree| {
            remove::remove_forgotten(&tree.base, remove::FORGOTTEN_AFTER)
                + match version {
                    Version::V1 => remove::remove_beside(&tree.base, remove::FORGOTTEN_AFTER),
                    Version::V2 => 0,
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

    fn new(version: Version, trees: Vec<Tree>, name: &str) -> io::Result<Self> {
        let remover = Arc::new(Remover::start()?);
        Ok(Self { version, trees, name: name.to_owned(), next: AtomicU64::new(1), remover })
    }

    /// What was found.
    pub(crate) fn describe(&self) -> Support {
        let mut controllers = Controllers::default();
        for name in self.trees.iter().flat_map(|tree| tree.controllers.names()) {
            controllers.add(name);
        }
        Support { version: self.version, controllers }
    }

    /// Makes a group for one worker. `slot` is for the reader of a listing, and may be used again at once.
    ///
    /// Blocks for a tenth of a millisecond or two, a third of it for the memory controller's new folder.
    ///
    /// # Errors
    /// What the kernel says; nothing is left then.
    pub(crate) fn group(&self, slot: &str, limits: &Limits) -> io::Result<Group> {
        let name = format!("{}.{slot}.{}", self.name, self.next.fetch_add(1, Ordering::Relaxed));
        Group::new(self.version, &self.trees, &name, limits, Arc::clone(&self.remover))
    }
}

impl Controllers {
    /// All of them.
    pub(crate) const ALL: Self = Self { memory: true, pids: true, cpu: true };

    /// Those of them that are named.
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
        let version = if self.version == Version::V1 { "v1" } else { "v2" };
        let names: Vec<_> = self.controllers.names().collect();
        write!(f, "cgroup {version} ({})", names.join(", "))
    }
}

/// Makes a group and removes it again: shows that it can be done, and what the kernel offers in it.
fn make_probe(base: &Path, name: &str, version: Version, controllers: Controllers) -> io::Result<Tree> {
    let probe = base.join(format!("{name}.probe"));
    make_dir(&probe)?;
    let has = |file| probe.join(file).exists();
    let (swap, memory) = match version {
        Version::V1 => ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes"),
        Version::V2 => ("memory.swap.max", "memory.max"),
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

/// Writes a value into a file of the kernel's, which takes it in one call or not at all.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
