//! The `clone` call, and the work of its child until it becomes the program.
//!
//! Everything that the child does is prepared as plain data ([`CloneArgs`], [`Confinement`]); this module carries it out.
#![allow(unsafe_code, reason = "clone, and the system calls of a child that may not allocate, have no safe wrapper")]

use super::process::{Child, page_bytes};
use super::user_map::{self, Gate, GateFiles, above_stdio};
use super::{ConfineStep, Confinement, LaunchError, LaunchSpec, Limit, MountCall, Resource};
use nix::sys::resource::getrlimit;
use nix::unistd::Pid;
use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::{io, mem, ptr, thread};

/// Stack of the child, which runs one shallow function and no signal handler.
const STACK_BYTES: usize = 64 * 1024;

/// Highest signal number on Linux; the lowest is 1.
const SIGNAL_MAX: c_int = 64;

/// Size of the kernel's `sigset_t`, with a bit for each signal.
const SIGNAL_SET_BYTES: usize = 8;

/// The kernel's `struct sigaction` for the default action: no handler, flags, restorer or mask.
const DEFAULT_ACTION: &[usize; 4] = &[0; 4];

/// Capability numbers are below this.
const CAPABILITIES_MAX: c_ulong = 64;

/// `struct __user_cap_header_struct` of the third version, for the caller.
const CAPABILITY_HEADER: &[u32; 2] = &[0x2008_0522, 0];

/// Two `struct __user_cap_data_struct` without any capability.
const NO_CAPABILITIES: &[u32; 6] = &[0; 6];

/// Progress of the child between `clone` and the program.
#[derive(Clone, Copy)]
enum Stage {
    Session,
    Stdio,
    UserMap,
    /// The confinement step with this index.
    Confine(usize),
    WorkingDir,
    Limit(Resource),
    Identity(u32),
    Capabilities,
    NoNewPrivileges,
    Ruleset,
    CloseFiles,
    ParentDeathSignal,
    ParentIsGone,
    SignalMask,
    Filter,
    Execute,
}

impl Stage {
    /// Name of the stage in an error message.
    fn name(self, confinement: &Confinement, working_dir: &Path) -> String {
        match self {
            Self::Session => "setsid".into(),
            Self::Stdio => "dup2".into(),
            Self::UserMap => "map of its user namespace".into(),
            Self::Confine(step) => confinement.steps[step].to_string(),
            Self::WorkingDir => format!("chdir {}", working_dir.display()),
            Self::Limit(resource) => format!("setrlimit {resource:?}"),
            Self::Identity(user) => format!("change to user {user}"),
            Self::Capabilities => "capset".into(),
            Self::NoNewPrivileges => "prctl PR_SET_NO_NEW_PRIVS".into(),
            Self::Ruleset => "landlock_restrict_self".into(),
            Self::CloseFiles => "close_range".into(),
            Self::ParentDeathSignal => "prctl PR_SET_PDEATHSIG".into(),
            Self::ParentIsGone => "getppid".into(),
            Self::SignalMask => "sigprocmask".into(),
            Self::Filter => "seccomp".into(),
            Self::Execute => "execve".into(),
        }
    }
}

/// Input of the child, and the one value that it writes.
struct CloneArgs<'a> {
    program: *const c_char,
    args: *const *const c_char,
    environment: *const *const c_char,
    working_dir: *const c_char,
    stdio: [RawFd; 3],
    limits: &'a [Limit],
    confinement: &'a Confinement,
    daemon: libc::pid_t,
    gate: Option<GateFiles>,
    failure: Cell<Option<(Stage, i32)>>,
}

/// Starts the process; called on the launching thread, which has blocked all signals.
pub(super) fn launch(spec: LaunchSpec, stack: &mut Stack) -> Result<Child, LaunchError> {
    let program = spec.program;
    let failed = |step: &str, source| LaunchError::Step { program: program.clone(), step: step.into(), source };
    let text = |what, text: &OsStr| {
        CString::new(text.as_bytes()).map_err(|_| LaunchError::ZeroByte { program: program.clone(), what })
    };
    // Everything that the child's pointers refer to lives in this frame until `clone` returns.
    let mut args = vec![text("path", program.as_os_str())?];
    for arg in &spec.args {
        args.push(text("argument", arg)?);
    }
    let mut environment = Vec::with_capacity(spec.environment.len());
    for (name, value) in &spec.environment {
        environment.push(text("environment", OsStr::new(&format!("{name}={value}")))?);
    }
    let working_dir = text("working directory", spec.working_dir.as_os_str())?;
    let (arg_pointers, environment_pointers) = (null_terminated(&args), null_terminated(&environment));
    let limits = effective(spec.limits).map_err(|it| failed("getrlimit", it))?;
    let stdin = above_stdio(spec.stdin).map_err(|it| failed("dup of stdin", it))?;
    let stdout = above_stdio(spec.stdout).map_err(|it| failed("dup of stdout", it))?;
    let stderr = above_stdio(spec.stderr).map_err(|it| failed("dup of stderr", it))?;
    let gate = spec.confinement.user_map.map(|map| Gate::new().map(|gate| (gate, map))).transpose();
    let gate = gate.map_err(|it| failed("socketpair", it))?;
    let order = CloneArgs {
        program: args[0].as_ptr(),
        args: arg_pointers.as_ptr(),
        environment: environment_pointers.as_ptr(),
        working_dir: working_dir.as_ptr(),
        stdio: [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()],
        limits: &limits,
        confinement: &spec.confinement,
        daemon: Pid::this().as_raw(),
        gate: gate.as_ref().map(|(gate, _)| gate.files()),
        failure: Cell::new(None),
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD | spec.confinement.namespaces;
    let pidfd = AtomicI32::new(-1);
    let (cloned, mapped) = match gate {
        None => (clone(&order, stack, flags, &pidfd), Ok(())),
        Some((gate, map)) => thread::scope(|scope| {
            let (outside, inside) = gate.split();
            let pidfd = &pidfd;
            let mapping = scope.spawn(move || user_map::map(outside, pidfd, map));
            let cloned = clone(&order, stack, flags, pidfd);
            // Without this, the thread would wait for ever if there is no child.
            drop(inside);
            (cloned, mapping.join().unwrap_or_else(|_| Err(io::Error::other("the mapping thread has panicked"))))
        }),
    };
    let pid = cloned.map_err(|it| failed("clone", it))?;
    // SAFETY: with `CLONE_PIDFD` the kernel has stored a new descriptor there, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd.load(Ordering::Acquire)) };
    let child = Child::new(Pid::from_raw(pid), pidfd);
    let Some((stage, errno)) = order.failure.get() else { return Ok(child) };
    child.reap_blocking();
    let step = stage.name(&spec.confinement, &spec.working_dir);
    let source = match (stage, mapped) {
        // The child only notices that it was not released.
        (Stage::UserMap, Err(error)) => error,
        _ => io::Error::from_raw_os_error(errno),
    };
    Err(failed(&step, source))
}

/// Creates the child, and returns when it has executed its program or ended. `pidfd` is set before the child runs.
fn clone(order: &CloneArgs<'_>, stack: &mut Stack, flags: c_int, pidfd: &AtomicI32) -> io::Result<libc::pid_t> {
    let argument = ptr::from_ref(order).cast_mut().cast::<c_void>();
    // SAFETY: the stack is mapped, unused and exclusively borrowed. `CLONE_VFORK` suspends this thread until the child
    // has executed its program or ended, so `order` and everything it points at outlive the child's use of them, and
    // nothing else writes there. Signals are blocked, so that no handler runs in the shared memory.
    let pid = unsafe { libc::clone(child_main, stack.top(), flags, argument, pidfd.as_ptr()) };
    if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

fn null_terminated(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect()
}

/// Lowers the limits to what can be set: only root may exceed a hard limit, and no limit is worth a failed start.
fn effective(limits: Vec<Limit>) -> io::Result<Vec<Limit>> {
    // Not 0: with a core limit of 0 the kernel still gives the memory of a crash to a collecting program, if
    // `core_pattern` names one; with 1 it does not (`core(5)`, and `fs/coredump.c`), and a core file needs at least a
    // page.
    let no_core = Limit::fixed(Resource::RLIMIT_CORE, 1);
    let lowered = |limit: Limit| {
        let hard = limit.hard.min(getrlimit(limit.resource)?.1);
        Ok(Limit { hard, soft: limit.soft.min(hard), ..limit })
    };
    limits.into_iter().chain([no_core]).map(lowered).collect()
}

/// Entry point of the child: executes the program, or records the failure.
extern "C" fn child_main(order: *mut c_void) -> c_int {
    // SAFETY: `launch` passes `CloneArgs` and waits while this runs.
    let order = unsafe { &*order.cast::<CloneArgs<'_>>() };
    // SAFETY: this is the child, and the order is complete.
    let Err(stage) = unsafe { become_program(order) };
    order.failure.set(Some((stage, nix::errno::Errno::last_raw())));
    // SAFETY: ends the child only, without running the daemon's exit handlers.
    unsafe { libc::_exit(127) }
}

fn check(result: impl Into<libc::c_long>, stage: Stage) -> Result<(), Stage> {
    if result.into() == -1 { Err(stage) } else { Ok(()) }
}

const NONE: c_ulong = 0;

/// # Safety
/// Only for the child of `launch`: it shares the memory of a process with other threads, so it may only make system
/// calls, on the data of `order`. The C library's wrappers that change the identity of a process are not mere system
/// calls: they would change the daemon's threads as well.
unsafe fn become_program(order: &CloneArgs<'_>) -> Result<Infallible, Stage> {
    let confinement = order.confinement;
    // SAFETY: the caller's promise covers the pointers of `order`; the others are to locals.
    unsafe {
        check(libc::setsid(), Stage::Session)?;
        for (target, file) in (0..).zip(order.stdio) {
            check(libc::dup2(file, target), Stage::Stdio)?;
        }
        if let Some(GateFiles { inside, outside }) = order.gate {
            // If this end stayed open, the child would wait for itself when the daemon is gone.
            libc::close(outside);
            let mut byte = 0_u8;
            check(libc::write(inside, (&raw const byte).cast(), 1) as libc::c_long, Stage::UserMap)?;
            if libc::read(inside, (&raw mut byte).cast(), 1) != 1 {
                return Err(Stage::UserMap);
            }
        }
        for (index, step) in confinement.steps.iter().enumerate() {
            check(carry_out(step), Stage::Confine(index))?;
        }
        check(libc::chdir(order.working_dir), Stage::WorkingDir)?;
        for limit in order.limits {
            let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
            check(libc::setrlimit(limit.resource as _, &raw const value), Stage::Limit(limit.resource))?;
        }
        if confinement.drop_capabilities {
            // Needs a capability itself. Fails for unused numbers, and without that capability: then the child cannot
            // gain any.
            for capability in 0..CAPABILITIES_MAX {
                libc::prctl(libc::PR_CAPBSET_DROP, capability, NONE, NONE, NONE);
            }
        }
        if let Some(user) = confinement.identity {
            check(libc::syscall(libc::SYS_setgroups, 0, ptr::null::<c_void>()), Stage::Identity(user))?;
            check(libc::syscall(libc::SYS_setresgid, user, user, user), Stage::Identity(user))?;
            check(libc::syscall(libc::SYS_setresuid, user, user, user), Stage::Identity(user))?;
        }
        if confinement.drop_capabilities {
            let (header, none) = (CAPABILITY_HEADER.as_ptr(), NO_CAPABILITIES.as_ptr());
            check(libc::syscall(libc::SYS_capset, header, none), Stage::Capabilities)?;
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, NONE, NONE, NONE), Stage::NoNewPrivileges)?;
        if let Some(ruleset) = &confinement.ruleset {
            check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0 as c_uint), Stage::Ruleset)?;
        }
        check(libc::syscall(libc::SYS_close_range, 3 as c_uint, c_uint::MAX, 0 as c_uint), Stage::CloseFiles)?;
        // Ignored signals survive `execve`, and Rust ignores SIGPIPE. The child has its own table of handlers. The C
        // library refuses to change the signals it reserves, so this calls the kernel; SIGKILL and SIGSTOP fail.
        for signal in 1..=SIGNAL_MAX {
            let default = DEFAULT_ACTION.as_ptr();
            libc::syscall(libc::SYS_rt_sigaction, signal, default, ptr::null::<c_void>(), SIGNAL_SET_BYTES);
        }
        // Last, because a change of identity clears it. A daemon that has died before this line sends no signal any
        // more, but has left the child to another parent. In a pid namespace the parent is never visible; there the
        // worker notices the end of its control channel.
        check(
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, NONE, NONE, NONE),
            Stage::ParentDeathSignal,
        )?;
        if confinement.namespaces & libc::CLONE_NEWPID == 0 && libc::getppid() != order.daemon {
            return Err(Stage::ParentIsGone);
        }
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()), Stage::SignalMask)?;
        for filter in &confinement.filters {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut().cast() };
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            check(libc::syscall(libc::SYS_seccomp, mode, 0 as c_uint, &raw const program), Stage::Filter)?;
        }
        libc::execve(order.program, order.args, order.environment);
    }
    Err(Stage::Execute)
}

/// Executes one step; returns -1 on failure.
///
/// # Safety
/// As for [`become_program`].
unsafe fn carry_out(step: &ConfineStep) -> libc::c_long {
    const HERE: *const c_char = c".".as_ptr();
    // SAFETY: every pointer is to a text of the step, to a constant or to a local.
    unsafe {
        match step {
            ConfineStep::Write { path, text } => write(path, text),
            ConfineStep::Mount(MountCall { source, target, kind, flags, options }) => {
                let kind = kind.map_or(ptr::null(), |it| it.as_ptr());
                let options = options.as_ref().map_or(ptr::null(), |it| it.as_ptr());
                libc::mount(source.as_ptr(), target.as_ptr(), kind, *flags, options.cast()).into()
            }
            ConfineStep::ReadOnly(target) => {
                // A remount would need all flags of the mount, which are not known here.
                let attr_set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
                let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
                let bytes = mem::size_of_val(&attributes);
                let (at, flags) = (libc::AT_FDCWD, 0 as c_uint);
                libc::syscall(libc::SYS_mount_setattr, at, target.as_ptr(), flags, &raw const attributes, bytes)
            }
            ConfineStep::WorkingDir(folder) => libc::chdir(folder.as_ptr()).into(),
            ConfineStep::SwapRoot => {
                // The old root ends up on top of the new one, where it can be unmounted without a name.
                if libc::syscall(libc::SYS_pivot_root, HERE, HERE) == -1 {
                    return -1;
                }
                libc::umount2(HERE, libc::MNT_DETACH).into()
            }
            ConfineStep::Loopback => {
                let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
                if socket == -1 {
                    return -1;
                }
                let mut request: libc::ifreq = mem::zeroed();
                request.ifr_name[..2].copy_from_slice(&[b'l' as c_char, b'o' as c_char]);
                request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
                let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
                libc::close(socket);
                result.into()
            }
        }
    }
}

/// # Safety
/// As for [`become_program`].
unsafe fn write(path: &CStr, text: &CStr) -> libc::c_long {
    // SAFETY: both pointers are to texts that end with a zero byte.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file == -1 {
            return -1;
        }
        let written = libc::write(file, text.as_ptr().cast(), text.count_bytes());
        // Keeps the errno of a failed write: closing a file of this kind does not fail.
        libc::close(file);
        written as libc::c_long
    }
}

/// The stack of the child, with a guard page below it that stops an overflow. One is enough, because launches are
/// sequential.
pub(super) struct Stack {
    mapping: ptr::NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the value owns its mapping, which is bound to no thread.
unsafe impl Send for Stack {}

impl Stack {
    pub(super) fn new() -> io::Result<Self> {
        let guard = page_bytes();
        let bytes = guard + STACK_BYTES;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = ptr::NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        let stack = Self { mapping, bytes };
        // SAFETY: the first page of the mapping above; a stack grows down towards it.
        if unsafe { libc::mprotect(start, guard, libc::PROT_NONE) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Upper end of the stack, where it begins.
    fn top(&mut self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, which is page-aligned.
        unsafe { self.mapping.as_ptr().byte_add(self.bytes) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: its own mapping, which no child uses any more.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.bytes) };
    }
}

/// Landlock version of the kernel; 0 if it has none, or it is switched off.
#[must_use]
pub fn landlock_version() -> u32 {
    const VERSION: c_uint = 1;
    let (no_attributes, none) = (ptr::null::<c_void>(), 0_usize);
    // SAFETY: with this flag and without attributes the call is a query that touches no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, none, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Makes the kernel keep the exit status of children: some parents start the daemon with `SIGCHLD` ignored.
pub(super) fn keep_exit_statuses() -> io::Result<()> {
    // SAFETY: all zeroes is a valid `sigaction`, which means the default action; both pointers are valid.
    unsafe {
        let default: libc::sigaction = mem::zeroed();
        let mut present: libc::sigaction = mem::zeroed();
        let mut result = libc::sigaction(libc::SIGCHLD, ptr::null(), &raw mut present);
        if result == 0 && present.sa_sigaction == libc::SIG_IGN {
            result = libc::sigaction(libc::SIGCHLD, &raw const default, ptr::null_mut());
        }
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
