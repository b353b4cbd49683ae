//! Every attempt, with its expected outcome at each level.

use super::{
    outcome::{
        Expected::{self, ByCgroup, DoesNotRun, Ends, NotTried, Possible as P, Stopped as S},
        Level, Outcome,
    },
    scene::{ATTACKER, REPEATER, Scene},
    sequences,
};
use levain::error::ErrorCode::{OutOfMemory, Timeout, WorkerCrashed};
use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

/// One attempt of a function.
pub struct Attack {
    group: &'static str,
    /// Action of the function, as the end of a sentence that begins with "It".
    pub what: &'static str,
    run: Run,
    /// Expected outcome by level, in the order of [`Level::ALL`].
    pub expected: [Expected; 5],
}

macro_rules! sequence {
    ($name:ident) => {
        Run::Sequence(|scene| Box::pin(sequences::$name(scene)))
    };
}

type Query = Vec<(&'static str, String)>;

/// Kind of an attempt.
enum Run {
    /// One invocation of the attacker: the attack and its parameters.
    Call(&'static str, fn(&Scene) -> Query),
    /// One system call that only administrators need.
    Syscall(&'static str),
    /// Several steps.
    Sequence(for<'a> fn(&'a Scene) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>),
}

impl Attack {
    pub async fn run(&self, scene: &Scene) -> Outcome {
        // An attempt that is stopped even without a sandbox may depend on the worker's own state.
        let is_stopped = self.expected[scene.level as usize] == S && self.expected[Level::Off as usize] != S;
        let attacker = if is_stopped && TRACELESS.contains(&self.group) { REPEATER } else { ATTACKER };
        match self.run {
            Run::Call(attack, query) => scene.attack_from(attacker, attack, &query(scene)).await,
            Run::Syscall(name) => scene.attack_from(attacker, "kernel.syscall", &[("name", name.to_owned())]).await,
            Run::Sequence(run) => run(scene).await,
        }
    }
}

fn path(path: PathBuf) -> Query {
    vec![("path", path.to_str().unwrap().to_owned())]
}

fn fixed(path: &str) -> Query {
    self::path(path.into())
}

fn proc_of(pid: u32, file: &str) -> Query {
    vec![("pid", pid.to_string()), ("file", file.into())]
}

fn pid(pid: u32) -> Query {
    vec![("pid", pid.to_string())]
}

/// Sends a signal that is ignored by default.
fn urgent(target: u32) -> Query {
    vec![("pid", target.to_string()), ("number", "23".into())]
}

/// Takes more than three times the memory limit of a worker.
fn much(_: &Scene) -> Query {
    vec![("megabytes", "200".into())]
}

/// A number over the limit, or a small one where there is no limit.
fn up_to(scene: &Scene, key: &'static str, few: u32, many: u32) -> Query {
    let is_limited = !matches!(scene.level, Level::Landlock | Level::Off);
    vec![(key, if is_limited { many } else { few }.to_string())]
}

fn nothing(_: &Scene) -> Query {
    Vec::new()
}

/// Stopped at every level.
const ALL: [Expected; 5] = [S, S, S, S, P];

/// Stopped even without a sandbox.
const EVEN_OFF: [Expected; 5] = [S; 5];

/// Stopped by a private view of the machine, but not by file rules.
const NOT_LANDLOCK: [Expected; 5] = [S, S, S, P, P];

/// Stopped by a private `/proc`.
const OWN_PROC: [Expected; 5] = [S, S, P, P, P];

/// System calls that functions do not need.
const SYSCALLS: &[&str] = &[
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "open_tree",
    "move_mount",
    "fsopen",
    "mount_setattr",
    "unshare",
    "setns",
    "clone of a user namespace",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "process_madvise",
    "kcmp",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "keyctl",
    "add_key",
    "request_key",
    "open_by_handle_at",
    "name_to_handle_at",
    "fanotify_init",
    "personality",
    "mknod of a device",
    "reboot",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "swapon",
    "acct",
    "sethostname",
    "settimeofday",
    "syslog of the kernel",
    "quotactl",
    "move_pages",
    "io_setup",
    "inotify_init1",
    "semget",
    "msgget",
    "mq_open",
    "memfd_secret",
    "process_mrelease",
    "set_mempolicy_home_node",
    "cachestat",
    "statmount",
    "listmount",
    "lsm_list_modules",
    "open_tree_attr",
    "syncfs",
    "prctl about who shares a processor core",
    "memfd_create of huge pages",
    "mmap of huge pages",
    "setsockopt of a protocol on top of TCP",
    "socket of UDP-Lite",
    "socket of MPTCP",
    "socket of SCTP",
    "socket of packets (AF_PACKET)",
    "socket of a virtual machine's host (AF_VSOCK)",
    "socket of the kernel's cryptography (AF_ALG)",
    "socket of Bluetooth",
    "socket of IPsec keys (AF_KEY)",
    "socket of XDP",
    "raw IP socket",
    "netlink of the firewall",
    "netlink of IPsec",
    "netlink of the audit log",
    "netlink of open sockets",
];

/// Group whose rows are named by their system calls only.
const CALLS: &str = "Asks the kernel for what functions do not need";

/// Groups whose attempts leave nothing behind when they are stopped, so that the next can begin in the same worker.
const TRACELESS: [&str; 3] = [FILES, SOCKETS, CALLS];

const FILES: &str = "Files";
const SOCKETS: &str = "Sockets and shared memory";

/// Returns the whole table.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut group = |group, rows: Vec<(&'static str, Run, [Expected; 5])>| {
        attacks.extend(rows.into_iter().map(|(what, run, expected)| Attack { group, what, run, expected }));
    };
    group(FILES, files());
    group("Processes", processes());
    group(SOCKETS, sockets());
    group("Privileges", privileges());
    group(CALLS, SYSCALLS.iter().map(|name| (*name, Run::Syscall(name), ALL)).collect());
    group("Uses up what others need", resources());
    group("Ends, or does not", ends());
    attacks
}

type Rows = Vec<(&'static str, Run, [Expected; 5])>;

fn files() -> Rows {
    use Run::Call;
    vec![
        ("reads the daemon's database", Call("files.read", |s| path(s.data().join("levain.db"))), ALL),
        ("reads the logs of all functions", Call("files.read", |s| path(s.data().join("logs.db"))), ALL),
        ("reads the daemon's configuration", Call("files.read", |s| path(s.config())), ALL),
        ("lists the data directory", Call("files.list", |s| path(s.data())), ALL),
        ("lists the workers' folders", Call("files.list", |s| path(s.data().join("run"))), ALL),
        ("reads another function's bundle", Call("files.read", |s| path(s.victim_bundle.clone())), ALL),
        (
            "reads what another function has left in its `/tmp`",
            Call("files.read", |s| path(s.victim_file.clone())),
            ALL,
        ),
        ("reads a file that everybody may read", Call("files.read", |s| path(s.surroundings.secret_file.clone())), ALL),
        (
            "reads it through a symbolic link",
            Call("files.readThroughLink", |s| path(s.surroundings.secret_file.clone())),
            ALL,
        ),
        (
            "reads it by way of `/proc/self/root`",
            Call("files.read", |s| {
                path(Path::new("/proc/self/root").join(s.surroundings.secret_file.strip_prefix("/").unwrap()))
            }),
            ALL,
        ),
        ("gives it a second name", Call("files.hardLink", |s| path(s.surroundings.secret_file.clone())), ALL),
        ("reads `/etc/passwd`", Call("files.read", |_| fixed("/etc/passwd")), ALL),
        ("reads `/etc/shadow`", Call("files.read", |_| fixed("/etc/shadow")), ALL),
        ("lists the machine's root", Call("files.listRoot", nothing), ALL),
        ("writes where everybody may", Call("files.create", |s| path(s.surroundings.open_folder.clone())), ALL),
        (
            "moves a file of its own where everybody may write",
            Call("files.moveOut", |s| path(s.surroundings.open_folder.clone())),
            ALL,
        ),
        ("moves and links files between folders of its `/tmp`", Call("files.move", nothing), [P; 5]),
        ("changes its own bundle", Call("files.writeBundle", nothing), ALL),
        ("changes the shim that workers start with", Call("files.writeProgram", nothing), ALL),
        (
            "changes a setting of the kernel",
            Call("files.openForWriting", |_| fixed("/proc/sys/kernel/core_pattern")),
            ALL,
        ),
        ("has the kernel obey its keyboard (`sysrq`)", sequence!(sysrq), ALL),
        ("changes the permissions of a device", Call("files.chmod", |_| fixed("/dev/null")), ALL),
        ("changes the permissions of the data directory", Call("files.chmod", |s| path(s.data())), ALL),
        ("changes them by an attribute (`setxattr`)", Call("files.setAttribute", |s| path(s.data())), ALL),
        ("changes them by the newer call for it (`setxattrat`)", Call("files.setAttributeAt", |s| path(s.data())), ALL),
        ("changes the flags of the data directory (`file_setattr`)", Call("files.setFlags", |s| path(s.data())), ALL),
        ("hears of new files in the data directory", Call("files.watch", |s| path(s.data())), ALL),
        ("has others wait who open a file that all workers have (a lease)", Call("files.lease", nothing), ALL),
        ("hears of new files in a folder that all workers have (`F_NOTIFY`)", Call("files.notify", nothing), ALL),
        ("tells another function something by locking such a file", sequence!(locks), [P; 5]),
        ("learns the size of a file", Call("files.stat", |s| path(s.surroundings.secret_file.clone())), NOT_LANDLOCK),
        ("uses an open file of the daemon", Call("files.descriptors", nothing), EVEN_OFF),
        (
            "finds a variable of the daemon in its own environment",
            Call("files.environment", |_| vec![("secret", super::surroundings::SECRET.into())]),
            EVEN_OFF,
        ),
    ]
}

fn processes() -> Rows {
    use Run::Call;
    vec![
        ("sees other processes", Call("processes.see", |s| pid(s.surroundings.process())), OWN_PROC),
        ("reads their arguments", Call("processes.readProc", |s| proc_of(s.daemon.pid(), "cmdline")), OWN_PROC),
        ("reads the daemon's environment", Call("processes.readProc", |s| proc_of(s.daemon.pid(), "environ")), ALL),
        ("reads the daemon's memory", Call("processes.readProc", |s| proc_of(s.daemon.pid(), "mem")), ALL),
        (
            "reads the machine's files through the daemon's root",
            Call("processes.readProc", |s| proc_of(s.daemon.pid(), "root")),
            ALL,
        ),
        ("reads the daemon's open files", Call("processes.readProc", |s| proc_of(s.daemon.pid(), "fd")), ALL),
        ("reads another worker's environment", Call("processes.readProc", |s| proc_of(s.victim, "environ")), ALL),
        ("reads another worker's memory", Call("processes.readProc", |s| proc_of(s.victim, "mem")), ALL),
        ("reads another worker's memory by a system call", Call("processes.readMemory", |s| pid(s.victim)), ALL),
        (
            "reads another worker's files through its root",
            Call("processes.readProc", |s| proc_of(s.victim, "root")),
            ALL,
        ),
        (
            "reads another worker's folder through its working directory",
            Call("processes.readProc", |s| proc_of(s.victim, "cwd")),
            ALL,
        ),
        ("signals the daemon", Call("processes.signal", |s| urgent(s.daemon.pid())), ALL),
        ("signals another worker", Call("processes.signal", |s| urgent(s.victim)), ALL),
        ("signals another worker by its descriptor", Call("processes.signalByDescriptor", |s| urgent(s.victim)), ALL),
        ("signals a process beside the daemon", Call("processes.signal", |s| urgent(s.surroundings.process())), ALL),
        ("kills everybody it can", sequence!(kill_all), ALL),
        ("debugs another worker", Call("processes.trace", |s| pid(s.victim)), ALL),
        ("takes another worker's socket", Call("processes.stealDescriptor", |s| pid(s.victim)), ALL),
        ("lowers the limits of another process", Call("processes.prlimit", |s| pid(s.surroundings.process())), ALL),
        ("lowers the priority of another process", Call("processes.priority", |s| pid(s.surroundings.process())), ALL),
        (
            "confines another process to one processor",
            Call("processes.affinity", |s| pid(s.surroundings.process())),
            ALL,
        ),
        (
            "changes how another process is scheduled",
            Call("processes.scheduler", |s| pid(s.surroundings.process())),
            ALL,
        ),
        (
            "changes another process's priority on the disk",
            Call("processes.ioPriority", |s| pid(s.surroundings.process())),
            ALL,
        ),
        ("lowers the priority of all processes of the daemon's user", sequence!(priority_of_user), ALL),
        ("has the kernel not end it with the daemon", Call("processes.outlive", nothing), ALL),
        ("changes its limit of core files", Call("processes.coreLimit", nothing), ALL),
        ("changes the limits by which the daemon knows its processes", Call("processes.mark", nothing), ALL),
        ("makes a process beside itself", Call("processes.sibling", nothing), [S, S, S, S, NotTried]),
        ("starts a shell", Call("processes.shell", nothing), ALL),
        ("starts Bun once more", Call("processes.bun", nothing), [P; 5]),
    ]
}

fn sockets() -> Rows {
    use Run::Call;
    vec![
        ("gives the daemon a command", Call("sockets.control", |s| path(s.daemon.socket())), ALL),
        ("calls another worker at its socket", Call("sockets.worker", |s| path(s.victim_socket.clone())), EVEN_OFF),
        (
            "connects to a socket of the machine by its path",
            Call("sockets.unix", |s| path(s.surroundings.socket.clone())),
            NOT_LANDLOCK,
        ),
        (
            "connects to a socket without a path (abstract)",
            Call("sockets.abstract", |s| vec![("name", s.surroundings.abstract_name.clone())]),
            ALL,
        ),
        (
            "opens shared memory of System V",
            Call("sockets.sharedMemory", |s| vec![("key", s.surroundings.shared_memory_key().to_string())]),
            ALL,
        ),
        (
            "connects to a port on 127.0.0.1, its network being on",
            Call("sockets.tcp", |s| vec![("port", s.surroundings.port.to_string())]),
            [P; 5],
        ),
        ("listens on a port of the machine, its network being on", Call("sockets.ownLoopback", nothing), [P; 5]),
        ("connects to a port on 127.0.0.1, its network being off", sequence!(offline), [S, S, S, S, DoesNotRun]),
        (
            "connects to it, its network having been turned off while it ran",
            sequence!(turned_off),
            [S, S, S, S, DoesNotRun],
        ),
        ("talks to itself on 127.0.0.1, its network being off", sequence!(offline_loopback), [P, P, P, S, DoesNotRun]),
    ]
}

fn privileges() -> Rows {
    use Run::Call;
    vec![
        ("has capabilities", Call("kernel.capabilities", nothing), ALL),
        ("gains any by a set-user-id program", Call("kernel.newPrivileges", nothing), EVEN_OFF),
        ("makes system calls that nobody filters", Call("kernel.unfiltered", nothing), ALL),
        ("makes system calls that the list below does not allow", sequence!(walk), ALL),
        ("becomes root", Call("kernel.becomeRoot", nothing), ALL),
        ("makes a process whose flags a filter cannot see (clone3)", Call("kernel.clone3", nothing), ALL),
        ("makes 32-bit system calls", sequence!(call32), ALL),
        ("makes system calls by the numbers of x32", Call("kernel.foreignCalls", nothing), ALL),
        ("leaves its group of processes", Call("processes.leaveGroup", nothing), [NotTried, NotTried, NotTried, S, P]),
    ]
}

fn resources() -> Rows {
    use Run::Call;
    let memory = [Ends(OutOfMemory); 5];
    let counted = [ByCgroup, ByCgroup, ByCgroup, ByCgroup, P];
    vec![
        ("has more memory than it may", Call("resources.memory", much), memory),
        ("has it at once", Call("resources.memoryAtOnce", much), memory),
        ("has it in a child process", Call("resources.memoryOfChild", much), counted),
        ("has it in a file without a name", Call("resources.memoryOfFile", much), counted),
        ("has it in shared pages", Call("resources.memoryOfMapping", much), counted),
        ("fills the disk", Call("resources.fillDisk", |s| up_to(s, "megabytes", 100, 300)), NOT_LANDLOCK),
        ("makes a file of 4 TiB", Call("resources.hugeFile", nothing), ALL),
        ("makes very many files", Call("resources.manyFiles", |s| up_to(s, "max", 1_000, 70_000)), NOT_LANDLOCK),
        ("opens very many files", Call("resources.manyDescriptors", |_| vec![("max", "20000".into())]), EVEN_OFF),
        (
            "takes what the daemon's user has of the kernel's watchers of files (inotify)",
            // A small number, because the limit may be that of the whole machine's root.
            Call("resources.manyWatchers", |_| vec![("max", "20".into())]),
            [NotTried, S, S, S, P],
        ),
        (
            "takes what the daemon's user has of the kernel's watches of open files (epoll)",
            Call("resources.manyWatches", |_| vec![("max", "150000".into())]),
            EVEN_OFF,
        ),
        ("starts very many processes", sequence!(fork_bomb), [S, S, S, ByCgroup, P]),
        ("fills the table of processes with ended ones", sequence!(zombies), [S, S, S, NotTried, NotTried]),
    ]
}

fn ends() -> Rows {
    use Run::Call;
    let crash = [Ends(WorkerCrashed); 5];
    vec![
        ("leaves processes behind", sequence!(orphans), ALL),
        ("goes on after its answer, and after it was deleted", sequence!(goes_on), EVEN_OFF),
        ("never gives the processor back", sequence!(spins), [Ends(Timeout); 5]),
        ("exits", Call("resources.exit", nothing), crash),
        ("aborts", Call("resources.abort", nothing), crash),
        ("reads from a null pointer", Call("resources.nullPointer", nothing), crash),
    ]
}

/// Formats the table for the document. System calls with equal outcomes share a row.
pub fn markdown() -> String {
    let names: Vec<_> = Level::ALL.iter().map(|level| format!("`{}`", level.name())).collect();
    let mut text = format!("| A function … | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let (mut group, attacks) = ("", attacks());
    for (index, attack) in attacks.iter().enumerate() {
        if attack.group != group {
            group = attack.group;
            text += &format!("| **{group}** |{}\n", " |".repeat(names.len()));
        }
        let mut what = attack.what.to_owned();
        if group == CALLS {
            let is_alike = |it: &&Attack| it.group == group && it.expected == attack.expected;
            if attacks[..index].iter().any(|it| is_alike(&it)) {
                continue;
            }
            let names: Vec<_> = attacks[index..].iter().filter(is_alike).map(|it| code(it.what)).collect();
            what = names.join(", ");
        }
        let cells: Vec<_> = attack.expected.iter().map(ToString::to_string).collect();
        text += &format!("| {what} | {} |\n", cells.join(" | "));
    }
    text
}

/// Marks names of a single word, which are system calls, as code.
fn code(name: &str) -> String {
    if name.contains(' ') { name.to_owned() } else { format!("`{name}`") }
}
