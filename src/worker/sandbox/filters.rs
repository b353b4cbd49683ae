//! System calls that no worker makes: a filter in the kernel refuses them.
//!
//! It is a list of what is denied, because what Bun and the libraries of functions need is a moving target; namespaces,
//! identity and Landlock decide what the rest can reach. A denied call fails with `EPERM`, and the program goes on.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};
use std::{collections::BTreeMap, sync::Arc};

/// Refused whatever their arguments are.
const DENIED: &[libc::c_long] = &[
    // Into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Namespaces, mounts and roots.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // Parts of the kernel where most of its holes were.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_personality,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    // The machine itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

/// The same, where only this kind of processor has them.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[libc::SYS_mknod, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// What takes a process out of the group that it is killed with, and what changes other things of files than what is in
/// them: the files of the daemon's user are the worker's own, and Landlock has no rule for that.
const AMONG_OTHERS: &[libc::c_long] = &[
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
];

/// The same, where only this kind of processor has them.
#[cfg(target_arch = "x86_64")]
const AMONG_OTHERS_HERE: &[libc::c_long] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const AMONG_OTHERS_HERE: &[libc::c_long] = &[];

/// Since Linux 6.6; the same number everywhere.
const SYS_FCHMODAT2: libc::c_long = 452;

/// What may be done to the caller only, which is 0 in this argument.
const ABOUT_PROCESSES: &[(libc::c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
];

/// A single process, to `ioprio_set`.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// Namespaces that `clone` could make.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Kinds of sockets there are with a network, and without.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const FAMILIES_WITHOUT_NETWORK: &[libc::c_int] = &[libc::AF_UNIX];

/// Numbers of system calls from here on are those of the x32 interface, where it exists.
const X32_BIT: u32 = 0x4000_0000;

/// What else is refused where namespaces do not see to it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extra {
    /// Sockets other than Unix sockets.
    pub(super) network: bool,
    /// What reaches beyond the worker where its files and processes are among the machine's.
    pub(super) among_others: bool,
}

/// Every filter, in the order in which they are to be set. Empty on a processor that they are not written for.
pub(super) fn compile(extra: Extra) -> Vec<Arc<BpfProgram>> {
    let Ok(arch) = std::env::consts::ARCH.try_into() else { return Vec::new() };
    let refusal = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules(extra), SeccompAction::Allow, refusal, arch);
    let program = filter.and_then(BpfProgram::try_from).expect("the rules are constants that the tests compile");
    vec![Arc::new(hidden()), Arc::new(program)]
}

fn rules(extra: Extra) -> BTreeMap<i64, Vec<SeccompRule>> {
    let others = [AMONG_OTHERS, AMONG_OTHERS_HERE].concat();
    let all = DENIED.iter().chain(DENIED_HERE).chain(others.iter().filter(|_| extra.among_others));
    // A number without rules of its own is refused always.
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = all.map(|number| (*number, Vec::new())).collect();
    for (number, argument) in ABOUT_PROCESSES {
        rules.insert(*number, vec![rule(&[(*argument, SeccompCmpOp::Ne, 0)])]);
    }
    // Of the process that calls, and not of all that belong to its group or user.
    let own =
        |which: libc::c_int| vec![rule(&[(0, SeccompCmpOp::Ne, which as u64)]), rule(&[(1, SeccompCmpOp::Ne, 0)])];
    rules.insert(libc::SYS_setpriority, own(libc::PRIO_PROCESS as libc::c_int));
    rules.insert(libc::SYS_ioprio_set, own(IOPRIO_WHO_PROCESS));
    let clone = NAMESPACES.iter().map(|flag| rule(&[(0, SeccompCmpOp::MaskedEq(*flag as u64), *flag as u64)]));
    rules.insert(libc::SYS_clone, clone.collect());
    rules.insert(libc::SYS_ioctl, vec![rule(&[(1, SeccompCmpOp::Eq, libc::TIOCSTI)])]);
    let families = if extra.network { FAMILIES_WITHOUT_NETWORK } else { FAMILIES };
    let odd: Vec<_> = families.iter().map(|family| (0, SeccompCmpOp::Ne, *family as u64)).collect();
    let netlink = [(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64), (2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE as u64)];
    rules.insert(libc::SYS_socket, vec![rule(&odd), rule(&netlink)]);
    rules.insert(libc::SYS_socketpair, vec![rule(&odd)]);
    rules
}

/// Applies when all conditions hold: an argument's number, and how it compares with what. Flags and identifiers are
/// passed in the lower half of an argument.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> SeccompRule {
    let condition = |(argument, how, value): &(u8, SeccompCmpOp, u64)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, how.clone(), *value)
    };
    let conditions: Result<Vec<_>, _> = conditions.iter().map(condition).collect();
    conditions.and_then(SeccompRule::new).expect("system calls have six arguments, and there are conditions")
}

/// What behaves as if the kernel did not have it: `clone3`, whose flags no filter can see and which the C library then
/// does without, and the second numbering of all system calls that some kernels have.
fn hidden() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 1, 0, libc::SYS_clone3 as u32),
        step(JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        step(RETURN, 0, 0, ERRNO | libc::ENOSYS as u32),
        step(RETURN, 0, 0, ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_compiles() {
        for (network, among_others) in [(false, false), (true, false), (false, true), (true, true)] {
            let filters = compile(Extra { network, among_others });
            assert_eq!(filters.len(), 2);
            assert!(filters.iter().all(|it| !it.is_empty()));
        }
    }

    #[test]
    fn what_is_denied_is_denied_once() {
        let rules = rules(Extra { network: false, among_others: true });
        let with_arguments = 6 + ABOUT_PROCESSES.len();
        let always = DENIED.len() + DENIED_HERE.len();
        assert_eq!(rules.len(), always + AMONG_OTHERS.len() + AMONG_OTHERS_HERE.len() + with_arguments);
        assert!(!rules.contains_key(&libc::SYS_clone3), "it is hidden instead");
    }
}
