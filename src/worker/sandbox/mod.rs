//! Isolation of functions from the machine, as far as this machine offers it.
//!
//! [`Sandbox::prepare`] prepares everything that the workers of a [`IsolationLevel`] share: the template of their root, their
//! filters, their users. The [`Spawner`](super::Spawner) finds out whether the level works by starting a worker. From
//! then on each worker gets a [`Slot`], and [`Sandbox::confine`] lists the steps of its process between `clone` and
//! Bun.
//!
//! | level | needs | a worker's files | its identity | processes it sees |
//! |---|---|---|---|---|
//! | `privileged` | root | its own root | a user of its own | its own |
//! | `user-namespace` | user namespaces | its own root | a user of a namespace of its own; outside, a user of its own if the daemon is root | its own |
//! | `shared-proc` | user namespaces, where `/proc` cannot be mounted | its own root | as for `user-namespace` | all |
//! | `landlock` | Landlock | those it is granted | the daemon's user without its capabilities | all |
//! | `off` | nothing | the daemon's | the daemon's user | all |
//!
//! Every level but the last adds system-call filters, resource limits, no new privileges and the parent-death signal.
//! Control groups ([`super::cgroup`]) are added at any of these levels where they can be written.

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
    cgroup::{self, Cgroups, ControlGroup, Controllers},
    launch::{self, ConfineStep, Confinement, UserMap},
    process_mark::ProcessMark,
    runtime::BunRuntime,
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

/// Bytes by which the limit of a control group exceeds the limit of private memory: the group also counts page tables,
/// the kernel's memory for sockets and processes, and files that are read.
pub(super) const GROUP_OVERHEAD_BYTES: u64 = 32 << 20;

/// Memory limit of a process that has no function yet.
const UNASSIGNED_BYTES_MAX: u64 = 256 << 20;

/// User number of a worker in its user namespace.
const INNER_USER: u32 = 1_000;

/// Strength of the isolation; the first level is the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IsolationLevel {
    /// Namespaces, a root and a user of its own, by the rights of root.
    Privileged,
    /// Namespaces and a root, by a user namespace; outside it, workers have different users only if the daemon is root.
    UserNamespace,
    /// Like [`Self::UserNamespace`], but the worker sees the processes of the machine.
    SharedProc,
    /// Rules about files, and filters.
    Landlock,
    /// No isolation.
    Off,
}

impl IsolationLevel {
    /// Levels with any isolation, the strongest first.
    const ALL: [Self; 4] = [Self::Privileged, Self::UserNamespace, Self::SharedProc, Self::Landlock];

    /// Name of the level in STATUS and in the configuration.
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

    /// Advice for a level that does not work: the change that would enable it.
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

/// Requested isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxOptions {
    /// Whether a sandbox is used, and whether it is required.
    pub mode: SandboxMode,
    /// Strongest level to try.
    pub level: SandboxLevel,
    /// Maximum processes and threads of one worker.
    pub processes_max: u32,
    /// Maximum open files of one process of a worker.
    pub open_files_max: u32,
    /// Size of a worker's `/tmp` in MiB.
    pub tmp_mb: u32,
}

impl SandboxOptions {
    /// Levels to try, the strongest first. With `strict` and a named level, only that level is tried.
    pub(super) fn levels(&self) -> Vec<IsolationLevel> {
        let named = match self.level {
            SandboxLevel::Auto => None,
            SandboxLevel::Privileged => Some(IsolationLevel::Privileged),
            SandboxLevel::UserNamespace => Some(IsolationLevel::UserNamespace),
            SandboxLevel::SharedProc => Some(IsolationLevel::SharedProc),
            SandboxLevel::Landlock => Some(IsolationLevel::Landlock),
        };
        let wanted = |level: &IsolationLevel| match (self.mode, named) {
            (SandboxMode::Off, _) => false,
            (SandboxMode::Auto, None) => true,
            (SandboxMode::Auto, Some(named)) => *level >= named,
            (SandboxMode::Strict, None) => *level <= IsolationLevel::UserNamespace,
            (SandboxMode::Strict, Some(named)) => *level == named,
        };
        IsolationLevel::ALL.into_iter().filter(wanted).collect()
    }
}

/// Purpose of a confined process.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role<'a> {
    /// Serves a function, whose code it reads.
    Worker(Network),
    /// Works on code and is thrown away.
    Tool {
        /// Network access of the process.
        network: Network,
        /// Control group of the process and its descendants. The tools of a slot run one after the other, and each
        /// needs its own group.
        group: Option<&'a ControlGroup>,
        /// Whether the process may write to the folder in which a worker has its code.
        is_writable: bool,
        /// A folder to show, and its place in the code folder; only with a root of its own.
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

/// Finds the control groups for the workers of a folder; `None` without a sandbox.
pub(super) fn find_cgroups(options: &SandboxOptions, run_dir: &Path) -> Option<Result<Cgroups, cgroup::Unavailable>> {
    if options.mode == SandboxMode::Off {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    run_dir.hash(&mut hasher);
    Some(Cgroups::find(&format!("levain-{:016x}", hasher.finish()), Controllers::ALL))
}

/// Isolation in effect, and what the machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationReport {
    /// Level in effect.
    pub level: IsolationLevel,
    /// Control groups of workers, if there are any: their version and controllers.
    pub cgroups: Option<String>,
    /// Features that the machine lacks, and how to get each.
    pub missing: Vec<String>,
}

impl Default for IsolationReport {
    /// Reports that there is no sandbox.
    fn default() -> Self {
        Self { level: IsolationLevel::Off, cgroups: None, missing: Vec::new() }
    }
}

/// Reason why a level was not chosen.
#[derive(Debug)]
pub(super) enum LevelFailure {
    /// The machine does not support it.
    Refused(String),
    /// A worker was not ready in time.
    Slow(String),
}

/// Everything that the workers of one level share.
#[derive(Debug)]
pub(super) struct Sandbox {
    level: IsolationLevel,
    /// Folder that holds a folder for each worker.
    run_dir: PathBuf,
    /// Mark of every process.
    mark: Option<ProcessMark>,
    open_files_max: u32,
    processes_max: u32,
    tmp_mb: u32,
    /// Template of the workers' roots, if they have roots of their own.
    root: Option<Root>,
    /// User numbers for workers, if each has its own.
    users: Option<Arc<Users>>,
    /// Landlock ruleset shared by all workers.
    fence: Option<Arc<OwnedFd>>,
    /// Programs and libraries that a worker without a root of its own may execute.
    programs: Vec<PathBuf>,
    filters: Vec<Arc<BpfProgram>>,
    filters_without_network: Vec<Arc<BpfProgram>>,
}

impl Sandbox {
    /// Returns a sandbox of level [`IsolationLevel::Off`], which isolates nothing.
    pub(super) fn off(options: &SandboxOptions, run_dir: &Path, mark: Option<ProcessMark>) -> Self {
        Self {
            level: IsolationLevel::Off,
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

    /// Prepares a level; whether it works is not known yet.
    pub(super) fn prepare(
        level: IsolationLevel,
        options: &SandboxOptions,
        runtime: &BunRuntime,
        run_dir: &Path,
        mark: Option<ProcessMark>,
    ) -> io::Result<Self> {
        let SandboxOptions { processes_max, tmp_mb, .. } = *options;
        let mut sandbox = Self { level, processes_max, tmp_mb, ..Self::off(options, run_dir, mark) };
        if level == IsolationLevel::Privileged {
            if !nix::unistd::geteuid().is_root() {
                return Err(io::Error::other("the daemon is not root"));
            }
            let users = Users::find(run_dir);
            sandbox.users =
                Some(users.ok_or_else(|| io::Error::other("this user namespace has no spare user numbers"))?);
        }
        // A daemon that can give each worker a user of its own must do so: otherwise the kernel sees them all as the
        // daemon's.
        if matches!(level, IsolationLevel::UserNamespace | IsolationLevel::SharedProc) && users::can_be_given() {
            sandbox.users = Users::find(run_dir);
        }
        if level == IsolationLevel::Landlock {
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
        let among_others = level == IsolationLevel::Landlock;
        let truncate = among_others && launch::landlock_version() < fence::WITH_TRUNCATE;
        sandbox.filters = filters::compile(Extra { network: false, among_others, truncate });
        sandbox.filters_without_network = filters::compile(Extra { network: true, among_others, truncate });
        Ok(sandbox)
    }

    /// Builds the report, with the reasons why these levels were not chosen.
    pub(super) fn report(&self, failed: Vec<(IsolationLevel, LevelFailure)>) -> IsolationReport {
        let not = |(level, failure): (IsolationLevel, LevelFailure)| match failure {
            LevelFailure::Refused(why) => format!("{}: {why}; to get it, {}", level.name(), level.remedy()),
            LevelFailure::Slow(why) => {
                format!("{}: {why}; to get it, restart the daemon on a less busy machine", level.name())
            }
        };
        let mut missing: Vec<String> = failed.into_iter().map(not).collect();
        let landlock = launch::landlock_version();
        if self.level != IsolationLevel::Off && landlock < fence::WITH_SCOPES {
            missing.push(format!(
                "abstract Unix sockets of the machine can be reached: this kernel has version {landlock} of Landlock; \
                 to keep workers from them, use Linux 6.12 or later, or `network = off`"
            ));
        }
        if self.level != IsolationLevel::Off && self.filters.is_empty() {
            missing.push("system calls are not filtered: there is no filter for this kind of processor".into());
        }
        IsolationReport { level: self.level, cgroups: None, missing }
    }

    /// Whether a user is a worker's; `None` if workers have no users of their own.
    pub(super) fn is_worker_user(&self, user: u32) -> Option<bool> {
        self.users.as_ref().map(|users| users.contain(user))
    }

    /// Creates the slot of another worker.
    pub(super) fn slot(&self, cgroups: Option<&Cgroups>) -> io::Result<Slot> {
        let limits = cgroup::GroupLimits { memory_max: UNASSIGNED_BYTES_MAX, processes_max: self.processes_max.into() };
        // Random, so that a process that cannot list the folder cannot guess a name in it.
        let name = Uuid::now_v7().simple().to_string();
        let group = cgroups.map(|cgroups| cgroups.group(&name, &limits)).transpose()?;
        self.slot_with(&name, group)
    }

    /// Creates a slot for processes that are limited one by one.
    pub(super) fn tool_slot(&self) -> io::Result<Slot> {
        self.slot_with(&Uuid::now_v7().simple().to_string(), None)
    }

    fn slot_with(&self, name: &str, group: Option<ControlGroup>) -> io::Result<Slot> {
        let user = match &self.users {
            Some(users) => Some(users.take().ok_or_else(|| io::Error::other("all user numbers are taken"))?),
            None => None,
        };
        Slot::new(&self.run_dir.join(name), self.view(), user, group)
    }

    /// The files that processes see.
    pub(super) fn view(&self) -> View {
        if self.root.is_some() { View::OwnRoot } else { View::Machine }
    }

    /// Returns Bun and its arguments, with paths as a worker sees them.
    pub(super) fn command(&self, runtime: &BunRuntime) -> (PathBuf, Vec<OsString>) {
        (self.bun(runtime), BunRuntime::worker_args(self.shim_folder(runtime), SOCKET_NAME))
    }

    /// Returns the path of Bun, as a process sees it.
    pub(super) fn bun(&self, runtime: &BunRuntime) -> PathBuf {
        if self.root.is_some() { root::BUN.into() } else { runtime.bun.clone() }
    }

    /// Returns the shim's folder, as a worker sees it.
    pub(super) fn shim_folder<'a>(&self, runtime: &'a BunRuntime) -> &'a Path {
        if self.root.is_some() { Path::new(root::SHIM) } else { runtime.shim_folder() }
    }

    /// Lists how a process is confined to a slot.
    pub(super) fn confine(&self, slot: &Slot, runtime: &BunRuntime, role: Role<'_>) -> io::Result<Confinement> {
        if self.level == IsolationLevel::Off {
            return unconfined(role);
        }
        // Entered before the process gives up any right and starts anything.
        let group = match role {
            Role::Worker(_) => slot.group().map(|it| &**it),
            Role::Tool { group, .. } => group,
        };
        let enter =
            group.into_iter().flat_map(|group| group.entries()).map(|file| ConfineStep::write(&file, "0")).collect();
        match &self.root {
            Some(root) => self.confine_to_root(root, slot, role, enter),
            None => self.confine_among_files(slot, runtime, role, enter),
        }
    }

    /// Confines a process without a root of its own: it sees only the granted ones among the machine's files.
    fn confine_among_files(
        &self,
        slot: &Slot,
        runtime: &BunRuntime,
        role: Role<'_>,
        steps: Vec<ConfineStep>,
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

    /// Confines a process to a root and namespaces of its own.
    fn confine_to_root(
        &self,
        root: &Root,
        slot: &Slot,
        role: Role<'_>,
        mut steps: Vec<ConfineStep>,
    ) -> io::Result<Confinement> {
        let mut namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let (mut identity, mut user_map) = (slot.user(), None);
        if self.level != IsolationLevel::Privileged {
            namespaces |= libc::CLONE_NEWUSER;
            match slot.user() {
                Some(outside) => {
                    user_map = Some(UserMap { inside: INNER_USER, outside });
                    identity = Some(INNER_USER);
                }
                None => {
                    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
                    // The kernel demands this before an unprivileged process may set the map of the groups.
                    steps.push(ConfineStep::write(Path::new("/proc/self/setgroups"), "deny"));
                    steps.push(ConfineStep::write(Path::new("/proc/self/uid_map"), &format!("{INNER_USER} {user} 1")));
                    steps.push(ConfineStep::write(Path::new("/proc/self/gid_map"), &format!("{INNER_USER} {group} 1")));
                }
            }
        }
        if role.network() == Network::Off {
            namespaces |= libc::CLONE_NEWNET;
            steps.push(ConfineStep::Loopback);
        }
        let (is_writable, shown) = match role {
            Role::Worker(_) => (false, None),
            Role::Tool { is_writable, shown, .. } => (is_writable, shown),
        };
        let shared_proc = self.level == IsolationLevel::SharedProc;
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
            // A network namespace has sockets, but only those that the worker makes itself.
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

/// Confinement without a sandbox: none.
fn unconfined(role: Role<'_>) -> io::Result<Confinement> {
    match (role.network(), role) {
        // An operator who switches the sandbox off also accepts builds without it.
        (Network::On, _) | (Network::Off, Role::Tool { .. }) => Ok(Confinement::default()),
        (Network::Off, Role::Worker(_)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "`network = off` needs a sandbox, but none is in effect; `levain status` shows why",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(mode: SandboxMode, level: SandboxLevel) -> Vec<IsolationLevel> {
        SandboxOptions { mode, level, processes_max: 1, open_files_max: 1, tmp_mb: 1 }.levels()
    }

    #[test]
    fn auto_goes_down_from_the_named_level_and_strict_does_not() {
        use IsolationLevel::{Landlock, Privileged, SharedProc, UserNamespace};
        assert_eq!(levels(SandboxMode::Auto, SandboxLevel::Auto), IsolationLevel::ALL);
        assert_eq!(levels(SandboxMode::Auto, SandboxLevel::SharedProc), [SharedProc, Landlock]);
        assert_eq!(levels(SandboxMode::Strict, SandboxLevel::Auto), [Privileged, UserNamespace]);
        assert_eq!(levels(SandboxMode::Strict, SandboxLevel::Landlock), [Landlock]);
        assert_eq!(levels(SandboxMode::Off, SandboxLevel::Privileged), []);
    }
}
