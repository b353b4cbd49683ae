//! Every system call of Linux, with its verdict for workers.
//!
//! The table is complete up to [`NEWEST`]: the filters are made from it, one test checks its numbers against the
//! kernel's own tables of both processors, and another tries all numbers in a worker. A number outside the table is
//! hidden, so that a newer kernel gives functions nothing that has not been reviewed. `docs/isolation.md` shows the
//! table.
//!
//! To add the calls of a newer kernel: put their names and numbers into `tests/golden/system_calls/`, and here into a
//! group whose reason fits.

/// The kinds of processors that have filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// `x86_64`.
    X86,
    /// `aarch64`.
    Arm,
}

impl Processor {
    /// Every supported kind.
    pub const ALL: [Self; 2] = [Self::X86, Self::Arm];

    /// The kind that this program runs on, if it is supported.
    #[must_use]
    pub fn here() -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == std::env::consts::ARCH)
    }

    /// Name of the processor in Rust and in the kernel.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }
}

/// Treatment of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallVerdict {
    /// The kernel executes it, within the caller's rights.
    Allowed,
    /// Depends on the arguments: refused ones fail with `EPERM`.
    Partly,
    /// Fails with `EPERM` where a worker's files and processes are among the machine's; allowed elsewhere.
    RefusedAmongOthers,
    /// Fails with `EPERM` there if the kernel's Landlock has no rule for truncating files; allowed elsewhere.
    RefusedWithoutTruncateRule,
    /// Fails with `EPERM`.
    Refused,
    /// Fails with `ENOSYS`, as if the kernel did not have it.
    Hidden,
}

/// A system call and its numbers; `None` where the processor does not have it.
#[derive(Debug, Clone, Copy)]
pub struct SystemCall {
    /// Name in the kernel's tables.
    pub name: &'static str,
    x86: Option<u32>,
    arm: Option<u32>,
}

impl SystemCall {
    /// Number of the call on a kind of processor.
    #[must_use]
    pub fn number(&self, processor: Processor) -> Option<u32> {
        match processor {
            Processor::X86 => self.x86,
            Processor::Arm => self.arm,
        }
    }
}

/// Calls with the same verdict for the same reason.
#[derive(Debug, Clone, Copy)]
pub struct CallGroup {
    /// Verdict on the calls.
    pub verdict: CallVerdict,
    /// Purpose of the calls, and the reason for the verdict.
    pub reason: &'static str,
    /// The calls of the group.
    pub calls: &'static [SystemCall],
}

/// The highest number in the table, on both processors: `rseq_slice_yield` of Linux 7.0.
pub const NEWEST: u32 = 471;

/// Looks up the number of a call in the table; `None` where the processor does not have it.
#[must_use]
pub fn number(name: &str, processor: Processor) -> Option<u32> {
    GROUPS.iter().flat_map(|group| group.calls).find(|call| call.name == name)?.number(processor)
}

macro_rules! number {
    (-) => {
        None
    };
    ($number:literal) => {
        Some($number)
    };
}

macro_rules! groups {
    ($($verdict:ident $reason:literal { $($name:ident $x86:tt $arm:tt),* })*) => {
        &[$(CallGroup {
            verdict: CallVerdict::$verdict,
            reason: $reason,
            calls: &[$(SystemCall { name: stringify!($name), x86: number!($x86), arm: number!($arm) }),*],
        }),*]
    };
}

/// The table: name, number on `x86_64`, number on `aarch64`.
pub const GROUPS: &[CallGroup] = groups! {
    Allowed "reads, writes, copies and locks open files" {
        read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
        preadv2 327 286, pwritev2 328 287, lseek 8 62, sendfile 40 71, copy_file_range 326 285, splice 275 76,
        tee 276 77, vmsplice 278 75, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -,
        pipe2 293 59, fsync 74 82, fdatasync 75 83, sync_file_range 277 84, ftruncate 77 46, fallocate 285 47,
        fadvise64 221 223, readahead 187 213, flock 73 32
    }
    Allowed "finds, opens, names and removes files: namespaces or Landlock decide which" {
        open 2 -, openat 257 56, openat2 437 437, creat 85 -, access 21 -, faccessat 269 48, faccessat2 439 439,
        stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44, readlink 89 -,
        readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, umask 95 166,
        mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38,
        renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, getxattr 191 8, lgetxattr 192 9,
        fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13, getxattrat 464 464,
        listxattrat 465 465, file_getattr 468 468
    }
    Allowed "memory of the caller, within its limits" {
        brk 12 214, munmap 11 215, mremap 25 216, mprotect 10 226, madvise 28 233, mincore 27 232, msync 26 227,
        mlock 149 228, mlock2 325 284, munlock 150 229, mlockall 151 230, munlockall 152 231, remap_file_pages 216 234,
        pkey_mprotect 329 288, pkey_alloc 330 289, pkey_free 331 290, mseal 462 462, map_shadow_stack 453 453,
        get_mempolicy 239 236
    }
    Allowed "waits for open files and for other threads" {
        poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -, epoll_create1 291 20,
        epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -, eventfd2 290 19,
        signalfd 282 -, signalfd4 289 74, timerfd_create 283 85, timerfd_settime 286 86, timerfd_gettime 287 87,
        futex 202 98, futex_waitv 449 449, futex_wake 454 454, futex_wait 455 455, futex_requeue 456 456,
        membarrier 324 283
    }
    Allowed "time, without setting the clock" {
        nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169,
        time 201 -, times 100 153, alarm 37 -, getitimer 36 102, setitimer 38 103, timer_create 222 107,
        timer_settime 223 110, timer_gettime 224 108, timer_getoverrun 225 109, timer_delete 226 111
    }
    Allowed "processes and threads of its own: a process namespace or Landlock decides which ones a signal reaches" {
        fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, exit 60 93, exit_group 231 94, wait4 61 260,
        waitid 247 95, pidfd_open 434 434, pidfd_send_signal 424 424, kill 62 129, tkill 200 130, tgkill 234 131,
        rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
        rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -,
        restart_syscall 219 128, set_tid_address 218 96, set_robust_list 273 99, get_robust_list 274 100, rseq 334 293,
        rseq_slice_yield 471 471, arch_prctl 158 -, sched_yield 24 124, sched_getaffinity 204 123,
        sched_getattr 315 275, sched_getparam 143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125,
        sched_get_priority_min 147 126, sched_rr_get_interval 148 127
    }
    Allowed "reads its own identity and resource usage" {
        getpid 39 172, getppid 110 173, gettid 186 178, getpgid 121 155, getpgrp 111 -, getsid 124 156, getuid 102 174,
        geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158,
        getcpu 309 168, getpriority 140 141, ioprio_get 252 31, getrlimit 97 163, getrusage 98 165, capget 125 90,
        sysinfo 99 179, uname 63 160, getrandom 318 278
    }
    Allowed "gives up rights: without a capability none can be gained" {
        setuid 105 146, setgid 106 144, setreuid 113 145, setregid 114 143, setresuid 117 147, setresgid 119 149,
        setfsuid 122 151, setfsgid 123 152, setgroups 116 159, capset 126 91, seccomp 317 277,
        landlock_create_ruleset 444 444, landlock_add_rule 445 445, landlock_restrict_self 446 446
    }
    Allowed "uses sockets that it has created or was given" {
        connect 42 203, bind 49 200, listen 50 201, accept 43 202, accept4 288 242, shutdown 48 210, sendto 44 206,
        recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, sendmmsg 307 269, recvmmsg 299 243, getsockname 51 204,
        getpeername 52 205, getsockopt 55 209
    }
    Allowed "inserted by the kernel into programs that the administrator traces; bypasses filters from Linux 6.14 on" {
        uprobe 336 -, uretprobe 335 -
    }
    Partly "creates processes and threads, but no namespaces, and no siblings of the caller" {
        clone 56 220
    }
    Partly "settings of the caller, except the parent-death signal and the sharing of processor cores" {
        prctl 157 167
    }
    Partly "limits and priorities of the caller, but not of others, not the limit on core files, and not the daemon's mark" {
        prlimit64 302 261, setrlimit 160 164, setpriority 141 140, ioprio_set 251 30, sched_setaffinity 203 122,
        sched_setattr 314 274, sched_setparam 142 118, sched_setscheduler 144 119
    }
    Partly "descriptors and locks, but no leases and no watches of folders" {
        fcntl 72 25
    }
    Partly "settings of open files, but no input for terminals and, at `landlock`, no attributes of files" {
        ioctl 16 29
    }
    Partly "memory, but no huge pages, which the whole machine shares" {
        mmap 9 222, memfd_create 319 279
    }
    Partly "Unix sockets, TCP and UDP, and netlink about addresses; only Unix sockets at `landlock` without a network" {
        socket 41 198, socketpair 53 199
    }
    Partly "options of sockets, but no other protocol on top of TCP" {
        setsockopt 54 208
    }
    RefusedAmongOthers "leaves the process group that the daemon kills" {
        setsid 112 157, setpgid 109 154
    }
    RefusedAmongOthers "changes a file's attributes, which no rule of Landlock covers" {
        chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, lchown 94 -,
        fchownat 260 54, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, setxattrat 463 463, removexattr 197 14,
        lremovexattr 198 15, fremovexattr 199 16, removexattrat 466 466, file_setattr 469 469, utime 132 -,
        utimes 235 -, futimesat 261 -, utimensat 280 88
    }
    RefusedWithoutTruncateRule "shortens a file by its name, which Landlock covers from Linux 6.2 on" {
        truncate 76 45
    }
    Refused "reaches into other processes" {
        ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440,
        process_mrelease 448 448, kcmp 312 272, pidfd_getfd 438 438
    }
    Refused "namespaces, mounts and roots" {
        setns 308 268, unshare 272 97, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51,
        move_mount 429 429, open_tree 428 428, open_tree_attr 467 467, fsopen 430 430, fsconfig 431 431,
        fsmount 432 432, fspick 433 433, mount_setattr 442 442, statmount 457 457, listmount 458 458, listns 470 470
    }
    Refused "files by handles instead of names, and device files" {
        name_to_handle_at 303 264, open_by_handle_at 304 265, mknod 133 -, mknodat 259 33
    }
    Refused "watches files, which others use too; the number of watchers is limited for each user of the machine" {
        inotify_init 253 -, inotify_init1 294 26, inotify_add_watch 254 27, inotify_rm_watch 255 28,
        fanotify_init 300 262, fanotify_mark 301 263
    }
    Refused "asynchronous I/O, whose requests are limited for the whole machine" {
        io_setup 206 0, io_destroy 207 1, io_submit 209 2, io_cancel 210 3, io_getevents 208 4, io_pgetevents 333 292
    }
    Refused "shared memory, semaphores and queues that outlive a process and are limited for the whole machine" {
        shmget 29 194, shmat 30 196, shmctl 31 195, shmdt 67 197, semget 64 190, semop 65 193, semtimedop 220 192,
        semctl 66 191, msgget 68 186, msgsnd 69 189, msgrcv 70 188, msgctl 71 187, mq_open 240 180, mq_unlink 241 181,
        mq_timedsend 242 182, mq_timedreceive 243 183, mq_notify 244 184, mq_getsetattr 245 185
    }
    Refused "parts of the kernel that functions do not need and where faults are often found" {
        bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426,
        io_uring_register 427 427, keyctl 250 219, add_key 248 217, request_key 249 218, personality 135 92,
        modify_ldt 154 -, iopl 172 -, ioperm 173 -, lookup_dcookie 212 18, ustat 136 -, sysfs 139 -
    }
    Refused "placement of memory, state of the page cache, and memory that keeps a machine from sleeping" {
        migrate_pages 256 238, move_pages 279 239, mbind 237 235, set_mempolicy 238 237,
        set_mempolicy_home_node 450 450, cachestat 451 451, memfd_secret 447 447
    }
    Refused "the machine itself" {
        kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273, delete_module 176 106,
        reboot 169 142, swapon 167 224, swapoff 168 225, acct 163 89, quotactl 179 60, quotactl_fd 443 443,
        syslog 103 116, settimeofday 164 170, clock_settime 227 112, clock_adjtime 305 266, adjtimex 159 171,
        sethostname 170 161, setdomainname 171 162, vhangup 153 58, sync 162 81, syncfs 306 267,
        lsm_get_self_attr 459 459, lsm_set_self_attr 460 460, lsm_list_modules 461 461
    }
    Hidden "creates processes with flags that no filter can see; the C library then uses `clone`" {
        clone3 435 435
    }
    Hidden "no longer in any kernel" {
        _sysctl 156 -, afs_syscall 183 -, create_module 174 -, epoll_ctl_old 214 -, epoll_wait_old 215 -,
        get_kernel_syms 177 -, get_thread_area 211 -, getpmsg 181 -, nfsservctl 180 42, putpmsg 182 -,
        query_module 178 -, security 185 -, set_thread_area 205 -, tuxcall 184 -, uselib 134 -, vserver 236 -
    }
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, fs, path::Path};

    /// Reads the kernel's table of a processor.
    fn golden(processor: Processor) -> BTreeMap<u32, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/system_calls");
        let text = fs::read_to_string(folder.join(processor.name())).expect("a table");
        let line = |line: &str| {
            line.split_once(' ').map(|(number, name)| (number.parse().expect("a number"), name.to_owned()))
        };
        text.lines().map(|it| line(it).expect("a number and a name")).collect()
    }

    #[test]
    fn the_table_has_every_call_of_both_processors_once() {
        for processor in Processor::ALL {
            let calls = GROUPS.iter().flat_map(|group| group.calls);
            let ours: Vec<_> = calls.filter_map(|call| Some((call.number(processor)?, call.name.to_owned()))).collect();
            let kernels = golden(processor);
            assert_eq!(ours.len(), kernels.len(), "{}", processor.name());
            assert_eq!(ours.into_iter().collect::<BTreeMap<_, _>>(), kernels);
            assert_eq!(kernels.keys().last(), Some(&NEWEST));
        }
    }

    #[test]
    fn no_call_is_without_a_number() {
        let mut calls = GROUPS.iter().flat_map(|group| group.calls);
        assert!(calls.all(|call| Processor::ALL.iter().any(|it| call.number(*it).is_some())));
    }
}
