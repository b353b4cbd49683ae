//! What keeps a function from the rest of the machine, and how much of it this machine offers.
//!
//! [`Sandbox::prepare`] makes ready whatever workers of a [`Level`] share: the template of their root, their filters,
//! their users. Whether the level works, the [`Spawner`](super::Spawner) finds out by starting a worker. From then on each
//! worker gets a [`Slot`], and [`Sandbox::confine`] says what its process does between `clone` and Bun.
//!
//! | level | needs | a worker's files | who it is | processes it sees |
//! |---|---|---|---|---|
//! | `privileged` | root | its own root | a user of its own | its own |
//! | `user-namespace` | user namespaces | its own root | a user of a namespace of its own; outside, a user of its own if the daemon is root | its own |
//! | `shared-proc` | the same, where `/proc` cannot be mounted | its own root | the same | all |
//! | `landlock` | Landlock | those it is granted | the daemon's user without its capabilities | all |
//! | `off` | nothing | the daemon's | the daemon's user | all |
//!
//! Filters of system calls, resource limits, no new privileges and the parent-death signal come with every level but the
//! last. Control groups ([`super::cgroup`]) come with any of them where they can be written.

mod fence;
mod filters;
mod libraries;
mod limits;
mod root;
mod slot;
pub mod system_calls;
mod users;

use slot::SOCKET_NAME;
pub(super) use slot::{Slot, View};

use super::{
    cgroup::{self, Cgroups, Controllers, Group},
    launch::{self, Confinement, Step, UserMap},
    mark::Mark,
    runtime::Runtime,
};
use crate::{
    config::{SandboxLevel, SandboxMode},
    model::Network,
};
use filters::Extra;
use root::{Root, RootOptions};
use seccompiler::BpfProgram;
use std::{
    ffi::OsString,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use users::Users;
use uuid::Uuid;

/// What the limit of a control group has over the memory that a function may have for itself: there it also counts page
/// tables, the kernel's memory for sockets and processes, and files that are read.
pub(super) const GROUP_OVERHEAD_BYTES: u64 = 32 << 20;

/// What a process may have before it has a function.
const UNASSIGNED_BYTES_MAX: u64 = 256 << 20;

/// Who a worker is in its user namespace.
const INNER_USER: u32 = 1_000;

/// How much a worker is kept from; the first is the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Namespaces, a root and a user of its own, by the rights of root.
    Privileged,
    /// The same by a user namespace; outside of that, workers are different users only if the daemon is root.
    UserNamespace,
    /// The same, but it sees the processes of the machine.
    SharedProc,
    /// Rules about files, and filters.
    Landlock,
    /// Nothing.
    Off,
}

impl Level {
    /// Those that keep a worker from anything, the best first.
    const ALL: [Self; 4] = [Self::Privileged, Self::UserNamespace, Self::SharedProc, Self::Landlock];

    /// As STATUS and the configuration name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::UserNamespace => "user-namespace",
            Self::SharedProc => "shared-proc",
            Self::Landlock => "landlock",
            Self::Off => "off",
        }
    }

    /// What would have to be different for a level that does not work.
    fn remedy(self) -> &'static str {
        match self {
            Self::Privileged => "run the daemon as root",
            Self::UserNamespace => {
                "let this user make user namespaces (sysctl user.max_user_namespaces, \
                 kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
            }
            Self::SharedProc => "allow user namespaces and mounts in this container",
            Self::Landlock => {
                "use a kernel with Landlock: Linux 5.13 or later, with landlock in the list of security modules"
            }
            Self::Off => "",
        }
    }
}

/// What is wanted of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxOptions {
    /// Whether there is to be one.
    pub mode: SandboxMode,
    /// The best level to try.
    pub level: SandboxLevel,
    /// Processes and threads of one worker.
    pub processes_max: u32,
    /// Files that one process of a worker may have open.
    pub open_files_max: u32,
    /// Size of a worker's `/tmp`.
    pub tmp_mb: u32,
}

impl SandboxOptions {
    /// The levels to try, the best first. With `strict` and a named level it is that one or none.
    pub(super) fn levels(&self) -> Vec<Level> {
        let named = match self.level {
            SandboxLevel::Auto => None,
            SandboxLevel::Privileged => Some(Level::Privileged),
            SandboxLevel::UserNamespace => Some(Level::UserNamespace),
            SandboxLevel::SharedProc => Some(Level::SharedProc),
            SandboxLevel::Landlock => Some(Level::Landlock),
        };
        let wanted = |level: &Level| match (self.mode, named) {
            (SandboxMode::Off, _) => false,
            (SandboxMode::Auto, None) => true,
            (SandboxMode::Auto, Some(named)) => *level >= named,
            (SandboxMode::Strict, None) => *level <= Level::UserNamespace,
            (SandboxMode::Strict, Some(named)) => *level == named,
        };
        Level::ALL.into_iter().filter(wanted).collect()
    }
}

/// What a process is confined for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role<'a> {
    /// It serves a function, whose code it reads.
    Worker(Network),
    /// It works on code and is thrown away.
    Tool {
        /// Whether it reaches anything.
        network: Network,
        /// What limits it and all it starts. A slot's tools come one after the other, and a group is of use once.
        group: Option<&'a Group>,
        /// Whether it may write to the folder where a worker has its code.
        is_writable: bool,
        /// A folder that it sees at a place in that folder; only where it has a root of its own.
        shown: Option<(&'a Path, &'a Path)>,
    },
}

impl Role<'_> {
    fn network(self) -> Network {
        match self {
            Self::Worker(network) | Self::Tool { network, .. } => network,
        }
    }
}

/// The control groups for the workers of a folder.
pub(super) fn find_cgroups(options: &SandboxOptions, run_dir: &Path) -> Option<Result<Cgroups, cgroup::Unavailable>> {
    if options.mode == SandboxMode::Off {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    run_dir.hash(&mut hasher);
    Some(Cgroups::find(&format!("levain-{:016x}", hasher.finish()), Controllers::ALL))
}

/// What workers are kept from, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How much it is.
    pub level: Level,
    /// The control groups of workers, if they have any: which version, and what they limit.
    pub cgroups: Option<String>,
    /// What the machine does not offer, and how to get it.
    pub missing: Vec<String>,
}

impl Default for Report {
    /// That of no sandbox.
    fn default() -> Self {
        Self { level: Level::Off, cgroups: None, missing: Vec::new() }
    }
}

/// Why a level is not what there is.
#[derive(Debug)]
pub(super) enum Failure {
    /// The machine does not offer it.
    Refused(String),
    /// A worker was not ready in time.
    Slow(String),
}

/// What the workers of one level share.
#[derive(Debug)]
pub(super) struct Sandbox {
    level: Level,
    /// Holds a folder for each worker.
    run_dir: PathBuf,
    /// What every process bears.
    mark: Option<Mark>,
    open_files_max: u32,
    processes_max: u32,
    tmp_mb: u32,
    /// The template of their roots, where they have one.
    root: Option<Root>,
    /// Their users, where they have one each.
    users: Option<Arc<Users>>,
    /// The ruleset that is the same for all of them.
    fence: Option<Arc<OwnedFd>>,
    /// What a worker without a root of its own executes.
    programs: Vec<PathBuf>,
    filters: Vec<Arc<BpfProgram>>,
    filters_without_network: Vec<Arc<BpfProgram>>,
}

impl Sandbox {
    /// None at all.
    pub(super) fn off(options: &SandboxOptions, run_dir: &Path, mark: Option<Mark>) -> Self {
        Self {
            level: Level::Off,
            run_dir: run_dir.to_owned(),
            mark,
            open_files_max: options.open_files_max,
            processes_max: 0,
            tmp_mb: 0,
            root: None,
            users: None,
            fence: None,
            programs: Vec::new(),
            filters: Vec::new(),
            filters_without_network: Vec::new(),
        }
    }

    /// Prepares a level; that does not mean that it works.
    pub(super) fn prepare(
        level: Level,
        options: &SandboxOptions,
        runtime: &Runtime,
        run_dir: &Path,
        mark: Option<Mark>,
    ) -> io::Result<Self> {
        let SandboxOptions { processes_max, tmp_mb, .. } = *options;
        let mut sandbox = Self { level, processes_max, tmp_mb, ..Self::off(options, run_dir, mark) };
        if level == Level::Privileged {
            if !nix::unistd::geteuid().is_root() {
                return Err(io::Error::other("the daemon is not root"));
            }
            let users = Users::find(run_dir);
            sandbox.users = Some(users.ok_or_else(|| io::Error::other("this user namespace has no users to spare"))?);
        }
        // Who may give each worker a user of its own in its namespace does: else all are the daemon's user to the kernel.
        if matches!(level, Level::UserNamespace | Level::SharedProc) && users::can_be_given() {
            sandbox.users = Users::find(run_dir);
        }
        if level == Level::Landlock {
            if launch::landlock_version() == 0 {
                return Err(io::Error::other("the kernel has no Landlock"));
            }
            let bun = runtime.bun.canonicalize()?;
            sandbox.programs = libraries::of(&bun)?;
            sandbox.programs.push(bun);
        } else {
            let template = run_dir.join(format!("root-{}", level.name()));
            sandbox.root = Some(Root::make(&template, runtime)?);
            sandbox.fence = fence::inside_a_root(&template)?.map(Arc::new);
        }
        let among_others = level == Level::Landlock;
        let truncate = among_others && launch::landlock_version() < fence::WITH_TRUNCATE;
        sandbox.filters = filters::compile(Extra { network: false, among_others, truncate });
        sandbox.filters_without_network = filters::compile(Extra { network: true, among_others, truncate });
        Ok(sandbox)
    }

    /// What there is, and why these levels are not what there is.
    pub(super) fn report(&self, failed: Vec<(Level, Failure)>) -> Report {
        let not = |(level, failure): (Level, Failure)| match failure {
            Failure::Refused(why) => format!("{}: {why}; to get it, {}", level.name(), level.remedy()),
            Failure::Slow(why) => {
                format!("{}: {why}; to get it, restart the daemon on a less busy machine", level.name())
            }
        };
        let mut missing: Vec<String> = failed.into_iter().map(not).collect();
        let landlock = launch::landlock_version();
        if self.level != Level::Off && landlock < fence::WITH_SCOPES {
            missing.push(format!(
                "abstract Unix sockets of the machine can be reached: this kernel has version {landlock} of Landlock; \
                 to keep workers from them, use Linux 6.12 or later, or `network = off`"
            ));
        }
        if self.level != Level::Off && self.filters.is_empty() {
            missing.push("system calls are not filtered: there is no filter for this kind of processor".into());
        }
        Report { level: self.level, cgroups: None, missing }
    }

    /// Whether this user is a worker's; none where workers have no users of their own.
    pub(super) fn is_worker_user(&self, user: u32) -> Option<bool> {
        self.users.as_ref().map(|users| users.contain(user))
    }

    /// A place for another worker.
    pub(super) fn slot(&self, cgroups: Option<&Cgroups>) -> io::Result<Slot> {
        let limits = cgroup::Limits { memory_max: UNASSIGNED_BYTES_MAX, processes_max: self.processes_max.into() };
        // Who cannot list the folder cannot guess a name in it.
        let name = Uuid::now_v7().simple().to_string();
        let group = cgroups.map(|cgroups| cgroups.group(&name, &limits)).transpose()?;
        self.slot_with(&name, group)
    }

    /// A place for processes that get their limits one by one.
    pub(super) fn tool_slot(&self) -> io::Result<Slot> {
        self.slot_with(&Uuid::now_v7().simple().to_string(), None)
    }

    fn slot_with(&self, name: &str, group: Option<Group>) -> io::Result<Slot> {
        let user = match &self.users {
            Some(users) => Some(users.take().ok_or_else(|| io::Error::other("all user numbers are taken"))?),
            None => None,
        };
        Slot::new(&self.run_dir.join(name), self.view(), user, group)
    }

    /// What processes see.
    pub(super) fn view(&self) -> View {
        if self.root.is_some() { View::OwnRoot } else { View::Machine }
    }

    /// Bun and its arguments, as a worker finds them.
    pub(super) fn command(&self, runtime: &Runtime) -> (PathBuf, Vec<OsString>) {
        (self.bun(runtime), Runtime::worker_args(self.shim_folder(runtime), SOCKET_NAME))
    }

    /// Bun, as a process finds it.
    pub(super) fn bun(&self, runtime: &Runtime) -> PathBuf {
        if self.root.is_some() { root::BUN.into() } else { runtime.bun.clone() }
    }

    /// The folder of the shim, as a worker finds it.
    pub(super) fn shim_folder<'a>(&self, runtime: &'a Runtime) -> &'a Path {
        if self.root.is_some() { Path::new(root::SHIM) } else { runtime.shim_folder() }
    }

    /// What a process does to be confined to a slot.
    pub(super) fn confine(&self, slot: &Slot, runtime: &Runtime, role: Role<'_>) -> io::Result<Confinement> {
        if self.level == Level::Off {
            return unconfined(role);
        }
        // Before it gives up any right, and before it has started anything.
        let group = match role {
            Role::Worker(_) => slot.group().map(|it| &**it),
            Role::Tool { group, .. } => group,
        };
        let enter = group.into_iter().flat_map(|group| group.entries()).map(|file| Step::write(&file, "0")).collect();
        match &self.root {
            Some(root) => self.confine_to_root(root, slot, role, enter),
            None => self.confine_among_files(slot, runtime, role, enter),
        }
    }

    /// Without a root of its own: among the machine's files it sees those that it is granted.
    fn confine_among_files(
        &self,
        slot: &Slot,
        runtime: &Runtime,
        role: Role<'_>,
        steps: Vec<Step>,
    ) -> io::Result<Confinement> {
        let (bundle, home) = (slot.bundle(), slot.home_inside());
        let writable: &[&Path] = match role {
            Role::Tool { is_writable: true, .. } => &[&home, &bundle],
            Role::Worker(_) | Role::Tool { .. } => &[&home],
        };
        let readable = &[runtime.shim_folder(), &bundle];
        let files = fence::Files { programs: &self.programs, readable, writable };
        Ok(Confinement {
            steps,
            drop_capabilities: true,
            ruleset: fence::among_files(&files)?.map(Arc::new),
            filters: self.filters(role.network()),
            ..Confinement::default()
        })
    }

    /// With a root and namespaces of its own.
    fn confine_to_root(
        &self,
        root: &Root,
        slot: &Slot,
        role: Role<'_>,
        mut steps: Vec<Step>,
    ) -> io::Result<Confinement> {
        let mut namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let (mut identity, mut user_map) = (slot.user(), None);
        if self.level != Level::Privileged {
            namespaces |= libc::CLONE_NEWUSER;
            match slot.user() {
                Some(outside) => {
                    user_map = Some(UserMap { inside: INNER_USER, outside });
                    identity = Some(INNER_USER);
                }
                None => {
                    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
                    // Without this, nobody who is not root may set the map of the groups.
                    steps.push(Step::write(Path::new("/proc/self/setgroups"), "deny"));
                    steps.push(Step::write(Path::new("/proc/self/uid_map"), &format!("{INNER_USER} {user} 1")));
                    steps.push(Step::write(Path::new("/proc/self/gid_map"), &format!("{INNER_USER} {group} 1")));
                }
            }
        }
        if role.network() == Network::Off {
            namespaces |= libc::CLONE_NEWNET;
            steps.push(Step::Loopback);
        }
        let (is_writable, shown) = match role {
            Role::Worker(_) => (false, None),
            Role::Tool { is_writable, shown, .. } => (is_writable, shown),
        };
        let shared_proc = self.level == Level::SharedProc;
        let owner = user_map.map(|map| map.inside);
        let options = RootOptions { tmp_mb: self.tmp_mb, owner, shared_proc, is_writable, shown };
        steps.extend(root.steps(&slot.bundle(), options));
        Ok(Confinement {
            namespaces,
            steps,
            user_map,
            identity,
            drop_capabilities: true,
            ruleset: self.fence.clone(),
            // A network namespace has sockets, and only those that the worker makes itself.
            filters: self.filters(Network::On),
        })
    }

    fn filters(&self, network: Network) -> Vec<Arc<BpfProgram>> {
        match network {
            Network::On => self.filters.clone(),
            Network::Off => self.filters_without_network.clone(),
        }
    }
}

/// What a process does where there is no sandbox: nothing.
fn unconfined(role: Role<'_>) -> io::Result<Confinement> {
    match (role.network(), role) {
        // Who switches the sandbox off has code built without it as well.
        (Network::On, _) | (Network::Off, Role::Tool { .. }) => Ok(Confinement::default()),
        (Network::Off, Role::Worker(_)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "`network = off` needs a sandbox, and there is none (`levain status` says why)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(mode: SandboxMode, level: SandboxLevel) -> Vec<Level> {
        SandboxOptions { mode, level, processes_max: 1, open_files_max: 1, tmp_mb: 1 }.levels()
    }

    #[test]
    fn auto_goes_down_from_the_named_level_and_strict_does_not() {
        use Level::{Landlock, Privileged, SharedProc, UserNamespace};
        assert_eq!(levels(SandboxMode::Auto, SandboxLevel::Auto), Level::ALL);
        assert_eq!(levels(SandboxMode::Auto, SandboxLevel::SharedProc), [SharedProc, Landlock]);
        assert_eq!(levels(SandboxMode::Strict, SandboxLevel::Auto), [Privileged, UserNamespace]);
        assert_eq!(levels(SandboxMode::Strict, SandboxLevel::Landlock), [Landlock]);
        assert_eq!(levels(SandboxMode::Off, SandboxLevel::Privileged), []);
    }
}
