//! The control group of one worker.

use super::{CgroupVersion, Directories, GroupLimits, Remover, Tree, write};
use parking_lot::Mutex;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Buffer size for the file that counts out-of-memory kills: a line for each of a few kinds of events.
const EVENTS_BYTES_MAX: usize = 512;

/// Highest process limit that the kernel accepts.
const PIDS_MAX: u64 = 1 << 22;

/// A control group. Dropping it hands it to another thread, which kills and removes it.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    version: CgroupVersion,
    directories: Directories,
    memory: Option<Memory>,
    /// Directory with the processor shares.
    cpu: Option<PathBuf>,
    remover: Arc<Remover>,
}

/// The memory limit. Its files stay open, because opening one costs ten times as much as writing it.
#[derive(Debug)]
struct Memory {
    #[cfg(test)]
    directory: PathBuf,
    limit: File,
    /// File that counts out-of-memory kills.
    events: File,
    /// Limit of memory and swap together; version 1 only, and only where the kernel accounts for swap.
    limit_with_swap: Option<File>,
    /// Current limit in bytes; the lock keeps the two files in step.
    max: Mutex<u64>,
}

impl ControlGroup {
    pub(super) fn new(
        version: CgroupVersion,
        trees: &[Tree],
        name: &str,
        limits: &GroupLimits,
        remover: Arc<Remover>,
    ) -> io::Result<Self> {
        // Created first, so that its drop cleans up when a later step fails.
        let mut group = Self::empty(version, remover);
        for tree in trees {
            let directory = tree.base.join(name);
            fs::create_dir(&directory)?;
            group.add_directory(tree, directory, limits)?;
        }
        Ok(group)
    }

    pub(super) fn empty(version: CgroupVersion, remover: Arc<Remover>) -> Self {
        Self { version, directories: Directories::default(), memory: None, cpu: None, remover }
    }

    /// Takes ownership of a directory in one hierarchy and sets the limits there.
    pub(super) fn add_directory(&mut self, tree: &Tree, directory: PathBuf, limits: &GroupLimits) -> io::Result<()> {
        self.directories.paths.push(directory.clone());
        if tree.controllers.memory {
            self.memory = Some(Memory::new(self.version, tree, &directory, limits.memory_max)?);
        }
        if tree.controllers.pids {
            self.directories.pids = Some(self.directories.paths.len() - 1);
            write(&directory.join("pids.max"), &limits.processes_max.min(PIDS_MAX).to_string())?;
        }
        if tree.controllers.cpu {
            self.cpu = Some(directory);
        }
        Ok(())
    }

    /// Files into which a single-threaded process writes `0` to enter the group, in any order; empty with version 2.
    ///
    /// Each costs the process 20 µs. Moving another process, or one of several threads, makes the kernel wait for every
    /// process that is just starting one: after a while without such moves this takes more than 10 ms.
    pub(crate) fn entries(&self) -> impl Iterator<Item = PathBuf> {
        let directories = self.directories.paths.iter().filter(|_| self.version == CgroupVersion::V1);
        directories.map(|directory| directory.join("tasks"))
    }

    /// Adds a process that could not enter by itself ([`Self::entries`]). The process must not be reaped before this
    /// returns. Processes that it started before stay outside.
    ///
    /// # Errors
    /// When the kernel refuses; `ESRCH` if the process has ended.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        let mut directories = self.directories.paths.iter().filter(|_| self.version == CgroupVersion::V2);
        directories.try_for_each(|directory| write(&directory.join("cgroup.procs"), &pid.to_string()))
    }

    /// Changes the memory limit; does nothing without that controller. One write, with version 1 two: 2 µs each.
    ///
    /// # Errors
    /// With version 1, `EBUSY` if the group uses more already and cannot free it. With version 2 the group is killed
    /// instead.
    pub(crate) fn set_memory_max(&self, bytes: u64) -> io::Result<()> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.set_max(bytes))
    }

    /// Sets the share of the processor under contention: an eighth of what other groups get, or as much as they get.
    /// Does nothing without that controller. One write: 10 µs.
    ///
    /// The share is not lower, as with `cpu.idle`: while it ends its mounts, a process holds a lock that every start
    /// and end of a process with mounts of its own needs (`synchronize_rcu_expedited`), and a process that gets no time
    /// on a full machine holds it for seconds.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub(crate) fn set_low_priority(&self, low: bool) -> io::Result<()> {
        let Some(directory) = &self.cpu else { return Ok(()) };
        let (file, normal) = match self.version {
            CgroupVersion::V1 => ("cpu.shares", 1024),
            CgroupVersion::V2 => ("cpu.weight", 100),
        };
        let weight = if low { normal / 8 } else { normal };
        write(&directory.join(file), &weight.to_string())
    }

    /// Number of processes in the group that the kernel has killed because the group had reached its memory limit.
    ///
    /// With version 1 the others live on.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let Some(memory) = &self.memory else { return 0 };
        let mut text = [0; EVENTS_BYTES_MAX];
        let length = memory.events.read_at(&mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }

    /// Ends every process in the group, including those they are just starting. May be called again. A process that
    /// enters later is ended when the group is dropped; the group is of no further use.
    ///
    /// One write with version 2 since Linux 5.14; otherwise a signal for each process.
    pub(crate) fn kill(&self) {
        self.directories.kill();
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        self.remover.remove(std::mem::take(&mut self.directories));
    }
}

impl Memory {
    fn new(version: CgroupVersion, tree: &Tree, directory: &Path, max: u64) -> io::Result<Self> {
        let open = |file| OpenOptions::new().write(true).open(directory.join(file));
        let (mut limit_with_swap, limit) = (
            None,
            match version {
                CgroupVersion::V1 => open("memory.limit_in_bytes")?,
                CgroupVersion::V2 => open("memory.max")?,
            },
        );
        match version {
            CgroupVersion::V1 if tree.has_swap => limit_with_swap = Some(open("memory.memsw.limit_in_bytes")?),
            CgroupVersion::V1 => write(&directory.join("memory.swappiness"), "0")?,
            CgroupVersion::V2 => {
                if tree.has_swap {
                    write(&directory.join("memory.swap.max"), "0")?;
                }
                write(&directory.join("memory.oom.group"), "1")?;
            }
        }
        let events = File::open(directory.join(match version {
            CgroupVersion::V1 => "memory.oom_control",
            CgroupVersion::V2 => "memory.events",
        }))?;
        let memory = Self {
            #[cfg(test)]
            directory: directory.into(),
            limit,
            events,
            limit_with_swap,
            max: Mutex::new(u64::MAX),
        };
        memory.set_max(max)?;
        Ok(memory)
    }

    fn set_max(&self, bytes: u64) -> io::Result<()> {
        let mut max = self.max.lock();
        let value = bytes.to_string();
        let set = |file: &File| file.write_all_at(value.as_bytes(), 0);
        match &self.limit_with_swap {
            None => set(&self.limit)?,
            // The limit with swap must never be below the limit without.
            Some(sum) if bytes > *max => set(sum).and_then(|()| set(&self.limit))?,
            Some(sum) => set(&self.limit).and_then(|()| set(sum))?,
        }
        *max = bytes;
        Ok(())
    }
}

#[cfg(test)]
impl ControlGroup {
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.paths.iter().map(PathBuf::as_path)
    }

    /// Bytes counted against the limit; `None` without that controller.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let file = match self.version {
            CgroupVersion::V1 => "memory.usage_in_bytes",
            CgroupVersion::V2 => "memory.current",
        };
        fs::read_to_string(self.memory.as_ref()?.directory.join(file)).ok()?.trim().parse().ok()
    }
}
