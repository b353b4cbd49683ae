//! Seccomp filters: the system calls that a worker may make.
//!
//! The first filter decides by the number of a call alone, from the table in [`system_calls`]. The
//! second examines the arguments of the few calls that are allowed in part. A refused call fails with `EPERM` and a
//! hidden one with `ENOSYS`, and the program goes on. Namespaces, identity and Landlock decide what the allowed calls
//! reach.
//!
//! Linux 5.11 and later remember which numbers are always allowed, and run no filter for them.

use super::system_calls::{self, CallVerdict, GROUPS, NEWEST, Processor};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use std::{collections::BTreeMap, sync::Arc};

/// Answers of a filter: the action in the upper half, an error number in the lower.
const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
const HIDE: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// Calls that are allowed for the caller only, which is 0 in this argument.
const ABOUT_PROCESSES: &[(&str, u8)] =
    &[("sched_setaffinity", 0), ("sched_setattr", 0), ("sched_setparam", 0), ("sched_setscheduler", 0)];

/// Selects a single process in `ioprio_set`.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// Flags that `clone` must not have: those that make namespaces, or a process whose parent is the daemon.
const CLONE_FLAGS: [libc::c_int; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_PARENT,
];

/// Socket families with a network, and without.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const FAMILIES_WITHOUT_NETWORK: &[libc::c_int] = &[libc::AF_UNIX];

/// Protocols over IP: the kernel's choice for streams and datagrams, TCP and UDP.
const PROTOCOLS: [libc::c_int; 3] = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];

/// Bits that other socket types have, unlike streams (1) and datagrams (2).
const OTHER_SOCKET_TYPES: [libc::c_int; 3] = [0b11, 0b100, 0b1000];

/// The last `prctl` setting of Linux 7.0 (`PR_RSEQ_SLICE_EXTENSION`), and the two outside the consecutive numbers.
const PRCTL_NEWEST: libc::c_int = 79;
const PRCTL_APART: [libc::c_int; 2] = [libc::PR_SET_VMA, libc::PR_SET_PTRACER];

/// Keeps other processes off the sibling threads of a processor core (`PR_SCHED_CORE`).
const PR_SCHED_CORE: libc::c_int = 62;

/// Resource limits that a worker must keep. A core limit of 0 is less than the worker's 1, and only 1 keeps the program
/// in `core_pattern` from the memory of a crash. The other two are the daemon's [mark](crate::worker::process_mark).
const FIXED_LIMITS: [libc::c_int; 3] =
    [libc::RLIMIT_CORE as libc::c_int, libc::RLIMIT_RSS as libc::c_int, libc::RLIMIT_LOCKS as libc::c_int];

/// Borders of the gap in the `fcntl` commands of Linux 7.0: 38 is `F_OFD_SETLKW`.
const FCNTL_LOW_NEWEST: libc::c_int = 38;
const FCNTL_HIGH_FIRST: libc::c_int = 1024;

/// The commands after this one are hints about a file's lifetime, and delegations, which are leases of folders too.
const F_GET_SEALS: libc::c_int = 1034;

/// Writes into the input of a terminal, the second through its menus.
const TERMINAL_INPUT: [libc::c_int; 2] = [libc::TIOCSTI as libc::c_int, 0x541c];

/// `ioctl`s that do the same as `file_setattr`, for an open file: `FS_IOC_SETFLAGS`, `FS_IOC_FSSETXATTR`,
/// `FS_IOC_ENABLE_VERITY`.
const FILE_ATTRIBUTES: [libc::c_int; 3] = [0x4008_6602, 0x401c_5820, 0x4080_6685];

/// `MAP_HUGETLB` and `MFD_HUGETLB`: huge pages, of which the machine has a fixed number.
const HUGE_MAPPING: libc::c_int = 0x4_0000;
const HUGE_FILE: libc::c_int = 4;

/// Further refusals where namespaces do not cover something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extra {
    /// Refuse sockets other than Unix sockets.
    pub(super) network: bool,
    /// Refuse calls that reach beyond a worker whose files and processes are among the machine's.
    pub(super) among_others: bool,
    /// Refuse truncation by name there, because the kernel's Landlock has no right for it.
    pub(super) truncate: bool,
}

/// Compiles every filter, in the order of installation. Empty on an unsupported processor.
pub(super) fn compile(extra: Extra) -> Vec<Arc<BpfProgram>> {
    Processor::here().map_or_else(Vec::new, |it| programs(it, extra).map(Arc::new).into())
}

fn programs(processor: Processor, extra: Extra) -> [BpfProgram; 2] {
    let arch = match processor {
        Processor::X86 => TargetArch::x86_64,
        Processor::Arm => TargetArch::aarch64,
    };
    let refusal = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules(processor, extra), SeccompAction::Allow, refusal, arch);
    let arguments = filter.and_then(BpfProgram::try_from).expect("the rules are constants that the tests compile");
    [numbers(processor, extra), arguments]
}

/// Decides by the number. Numbers outside the table are hidden, including the second numbering of all calls (x32).
fn numbers(processor: Processor, extra: Extra) -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let mut answers = vec![HIDE; NEWEST as usize + 1];
    for group in GROUPS {
        for number in group.calls.iter().filter_map(|call| call.number(processor)) {
            answers[number as usize] = answer(group.verdict, extra);
        }
    }
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = vec![step(LOAD, 0, 0, 0)];
    let mut end = 0;
    for run in answers.chunk_by(|a, b| a == b) {
        end += run.len() as u32;
        program.extend([step(JUMP_IF_AT_LEAST, 1, 0, end), step(RETURN, 0, 0, run[0])]);
    }
    program.push(step(RETURN, 0, 0, HIDE));
    program
}

fn answer(verdict: CallVerdict, extra: Extra) -> u32 {
    match verdict {
        CallVerdict::RefusedAmongOthers if extra.among_others => REFUSE,
        CallVerdict::RefusedWithoutTruncateRule if extra.truncate => REFUSE,
        CallVerdict::Allowed
        | CallVerdict::Partly
        | CallVerdict::RefusedAmongOthers
        | CallVerdict::RefusedWithoutTruncateRule => ALLOW,
        CallVerdict::Refused => REFUSE,
        CallVerdict::Hidden => HIDE,
    }
}

type SeccompRules = BTreeMap<i64, Vec<SeccompRule>>;

/// Returns the refused arguments of the calls that are allowed in part.
fn rules(processor: Processor, extra: Extra) -> SeccompRules {
    let mut rules = SeccompRules::new();
    let mut refuse = |name: &str, when: Vec<SeccompRule>| {
        let number = system_calls::number(name, processor).expect("both processors have the calls with rules");
        rules.insert(number.into(), when);
    };
    for (name, argument) in ABOUT_PROCESSES {
        refuse(name, vec![rule([is_not(*argument, 0)])]);
    }
    refuse("setrlimit", FIXED_LIMITS.iter().map(|limit| rule([is(0, *limit)])).collect());
    let fixed = FIXED_LIMITS.iter().map(|limit| rule([is(1, *limit), is_pointer(2)]));
    refuse("prlimit64", [rule([is_not(0, 0)])].into_iter().chain(fixed).collect());
    // Only for the calling process, not for all processes of its group or user.
    let own = |which: libc::c_int| vec![rule([is_not(0, which)]), rule([is_not(1, 0)])];
    refuse("setpriority", own(libc::PRIO_PROCESS as libc::c_int));
    refuse("ioprio_set", own(IOPRIO_WHO_PROCESS));
    refuse("clone", CLONE_FLAGS.iter().map(|flag| rule([with(0, *flag)])).collect());
    refuse("mmap", vec![rule([with(3, HUGE_MAPPING)])]);
    refuse("memfd_create", vec![rule([with(1, HUGE_FILE)])]);
    refuse("prctl", prctl());
    refuse("fcntl", fcntl());
    let attributes = FILE_ATTRIBUTES.iter().filter(|_| extra.among_others);
    refuse("ioctl", TERMINAL_INPUT.iter().chain(attributes).map(|it| rule([is(1, *it)])).collect());
    refuse("socket", socket(extra));
    refuse("socketpair", vec![rule(odd_families(extra))]);
    let on_top_of_tcp = [is(1, libc::IPPROTO_TCP), is(2, libc::TCP_ULP)];
    refuse("setsockopt", vec![rule(on_top_of_tcp)]);
    rules
}

/// Refuses to outlive the daemon, to take a core from others, and to use settings of newer kernels.
fn prctl() -> Vec<SeccompRule> {
    let unknown = [is_above(0, PRCTL_NEWEST), is_not(0, PRCTL_APART[0]), is_not(0, PRCTL_APART[1])];
    vec![rule([is(0, libc::PR_SET_PDEATHSIG)]), rule([is(0, PR_SCHED_CORE)]), rule(unknown)]
}

/// Refuses leases, which make every other opener of a file wait: all workers have some files in common.
fn fcntl() -> Vec<SeccompRule> {
    let between = [is_above(1, FCNTL_LOW_NEWEST), is_below(1, FCNTL_HIGH_FIRST)];
    vec![
        rule([is(1, libc::F_SETLEASE)]),
        rule([is(1, libc::F_NOTIFY)]),
        rule([is_above(1, F_GET_SEALS)]),
        rule(between),
    ]
}

fn socket(extra: Extra) -> Vec<SeccompRule> {
    let mut rules = vec![rule(odd_families(extra)), rule([is(0, libc::AF_NETLINK), is_not(2, libc::NETLINK_ROUTE)])];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut odd_protocol = vec![is(0, family)];
        odd_protocol.extend(PROTOCOLS.map(|protocol| is_not(2, protocol)));
        rules.push(rule(odd_protocol));
        rules.extend(OTHER_SOCKET_TYPES.map(|bits| rule([is(0, family), with(1, bits)])));
    }
    rules
}

/// Matches every family that is not allowed.
fn odd_families(extra: Extra) -> Vec<SeccompCondition> {
    let families = if extra.network { FAMILIES_WITHOUT_NETWORK } else { FAMILIES };
    families.iter().map(|family| is_not(0, *family)).collect()
}

fn is(argument: u8, value: libc::c_int) -> SeccompCondition {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn is_not(argument: u8, value: libc::c_int) -> SeccompCondition {
    condition(argument, SeccompCmpOp::Ne, value)
}

fn is_above(argument: u8, value: libc::c_int) -> SeccompCondition {
    condition(argument, SeccompCmpOp::Gt, value)
}

fn is_below(argument: u8, value: libc::c_int) -> SeccompCondition {
    condition(argument, SeccompCmpOp::Lt, value)
}

/// Matches if all these bits are set.
fn with(argument: u8, bits: libc::c_int) -> SeccompCondition {
    condition(argument, SeccompCmpOp::MaskedEq(bits as u32 as u64), bits)
}

/// Compares the lower half of an argument, which carries flags and identifiers.
fn condition(argument: u8, how: SeccompCmpOp, value: libc::c_int) -> SeccompCondition {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value as u32 as u64);
    condition.expect("system calls have six arguments")
}

/// Matches a pointer that is not null. All of it counts, because its lower half may be 0.
fn is_pointer(argument: u8) -> SeccompCondition {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
    condition.expect("system calls have six arguments")
}

/// Applies when all conditions hold.
fn rule(conditions: impl Into<Vec<SeccompCondition>>) -> SeccompRule {
    SeccompRule::new(conditions.into()).expect("there are conditions")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input of a filter, in the kernel's order: number, processor, instruction pointer, six arguments.
    struct Question {
        number: u32,
        processor: Processor,
        arguments: [u64; 6],
    }

    impl Question {
        /// Returns the 32 bits at an offset of `struct seccomp_data`.
        fn word(&self, offset: u32) -> u32 {
            match (offset, self.processor) {
                (0, _) => self.number,
                (4, Processor::X86) => 0xc000_003e,
                (4, Processor::Arm) => 0xc000_00b7,
                (16.., _) => {
                    let argument = self.arguments[(offset as usize - 16) / 8];
                    (argument >> (offset % 8 * 8)) as u32
                }
                _ => panic!("no filter looks at offset {offset}"),
            }
        }

        /// Runs a program like the kernel's interpreter, as far as these programs need it.
        fn ask(&self, program: &BpfProgram) -> u32 {
            let (mut at, mut accumulator) = (0, 0);
            loop {
                let sock_filter { code, jt, jf, k } = program[at];
                at += 1;
                let jump = |is_true: bool| usize::from(if is_true { jt } else { jf });
                match code {
                    0x20 => accumulator = self.word(k),
                    0x54 => accumulator &= k,
                    0x05 => at += k as usize,
                    0x15 => at += jump(accumulator == k),
                    0x25 => at += jump(accumulator > k),
                    0x35 => at += jump(accumulator >= k),
                    0x06 => return k,
                    _ => panic!("no instruction {code:#x}"),
                }
            }
        }

        /// Returns the most restrictive answer, which the kernel uses.
        fn answer(&self, extra: Extra) -> u32 {
            let answers = programs(self.processor, extra).map(|it| self.ask(&it));
            *answers.iter().min_by_key(|it| **it & 0xffff_0000).expect("two")
        }
    }

    const ONLY_NAMESPACES: Extra = Extra { network: false, among_others: false, truncate: false };
    const LANDLOCK: Extra = Extra { network: false, among_others: true, truncate: false };
    const OLD_LANDLOCK: Extra = Extra { network: true, among_others: true, truncate: true };

    fn answer(name: &str, processor: Processor, given: &[i64], extra: Extra) -> u32 {
        let number = system_calls::number(name, processor).expect("it is in the table");
        let mut arguments = [0; 6];
        given.iter().zip(&mut arguments).for_each(|(given, it)| *it = *given as u64);
        Question { number, processor, arguments }.answer(extra)
    }

    #[test]
    fn every_number_gets_the_answer_of_the_table() {
        for (processor, extra) in
            Processor::ALL.iter().flat_map(|it| [ONLY_NAMESPACES, LANDLOCK, OLD_LANDLOCK].map(|extra| (*it, extra)))
        {
            let mut wanted = BTreeMap::new();
            for group in GROUPS.iter().filter(|it| it.verdict != CallVerdict::Partly) {
                let numbers = group.calls.iter().filter_map(|call| call.number(processor));
                wanted.extend(numbers.map(|number| (number, answer_for(group.verdict, extra))));
            }
            let partly: Vec<_> = GROUPS.iter().filter(|it| it.verdict == CallVerdict::Partly).collect();
            let has_rules =
                |number| partly.iter().flat_map(|it| it.calls).any(|call| call.number(processor) == Some(number));
            let beyond = [0x3fff_ffff, 0x4000_0000, 0x4000_0027, 0x7fff_ffff, u32::MAX];
            for number in (0..2048).filter(|it| !has_rules(*it)).chain(beyond) {
                let found = Question { number, processor, arguments: [0; 6] }.answer(extra);
                assert_eq!(found, wanted.get(&number).copied().unwrap_or(HIDE), "{number} on {}", processor.name());
            }
        }
    }

    /// Restates the verdicts independently of the code under test.
    fn answer_for(verdict: CallVerdict, extra: Extra) -> u32 {
        let is_refused = match verdict {
            CallVerdict::Hidden => return HIDE,
            CallVerdict::Refused => true,
            CallVerdict::RefusedAmongOthers => extra.among_others,
            CallVerdict::RefusedWithoutTruncateRule => extra.truncate,
            CallVerdict::Allowed | CallVerdict::Partly => false,
        };
        if is_refused { REFUSE } else { ALLOW }
    }

    #[test]
    fn arguments_decide_where_the_table_says_so() {
        const SHARED: i64 = 0x21;
        let refused: &[(&str, &[i64])] = &[
            ("prctl", &[1, 0]),
            ("prctl", &[1, 9]),
            ("prctl", &[62, 1]),
            ("prctl", &[80]),
            ("fcntl", &[3, 1024, 0]),
            ("fcntl", &[3, 1026, 2]),
            ("fcntl", &[3, 1040]),
            ("fcntl", &[3, 100]),
            ("mmap", &[0, 4096, 3, SHARED | 0x4_0000, -1]),
            ("memfd_create", &[0, 4 | 1]),
            ("clone", &[0x1000_0000 | 17]),
            ("clone", &[0x8000 | 17]),
            ("socket", &[2, 2, 136]),
            ("socket", &[10, 1 | 0o2000000, 262]),
            ("socket", &[2, 2, 1]),
            ("socket", &[2, 3, 0]),
            ("socket", &[2, 5, 0]),
            ("socket", &[10, 6, 0]),
            ("socket", &[16, 3, 12]),
            ("socket", &[40, 1, 0]),
            ("socketpair", &[17, 1, 0]),
            ("setsockopt", &[3, 6, 31]),
            ("ioctl", &[0, 0x5412]),
            ("ioctl", &[0, 0x541c]),
            ("prlimit64", &[1]),
            ("sched_setscheduler", &[1]),
            ("prlimit64", &[0, 4, 1 << 32]),
            ("setrlimit", &[4, 1]),
            ("setpriority", &[0, 1]),
            ("setpriority", &[2, 0]),
            ("ioprio_set", &[1, 7]),
        ];
        let allowed: &[(&str, &[i64])] = &[
            ("prctl", &[15, 1]),
            ("prctl", &[79]),
            ("prctl", &[0x5356_4d41, 0]),
            ("prctl", &[0x5961_6d61, 0]),
            ("fcntl", &[3, 6]),
            ("fcntl", &[3, 38]),
            ("fcntl", &[3, 1025]),
            ("fcntl", &[3, 1030, 3]),
            ("fcntl", &[3, 1034]),
            ("mmap", &[0, 4096, 3, SHARED, -1]),
            ("memfd_create", &[0, 1 | 2]),
            ("clone", &[0x3d_0f00]),
            ("clone", &[0x4100 | 17]),
            ("socket", &[2, 1 | 0o2004000, 6]),
            ("socket", &[10, 2, 17]),
            ("socket", &[2, 1, 0]),
            ("socket", &[16, 3, 0]),
            ("socket", &[1, 5, 0]),
            ("socketpair", &[1, 1, 0]),
            ("setsockopt", &[3, 6, 1]),
            ("ioctl", &[0, 0x541b]),
            ("prlimit64", &[0, 7, 1]),
            ("prlimit64", &[0, 4, 0, 1]),
            ("setrlimit", &[7, 1]),
            ("setpriority", &[0, 0, 5]),
        ];
        for processor in Processor::ALL {
            let ask = |(name, given): &(&str, &[i64]), wanted| {
                let found = answer(name, processor, given, ONLY_NAMESPACES);
                assert_eq!(found, wanted, "{name} {given:?} on {}", processor.name());
            };
            refused.iter().for_each(|it| ask(it, REFUSE));
            allowed.iter().for_each(|it| ask(it, ALLOW));
        }
    }

    #[test]
    fn what_is_among_the_machines_may_do_less() {
        for processor in Processor::ALL {
            let tcp = |extra| answer("socket", processor, &[2, 1, 0], extra);
            assert_eq!((tcp(LANDLOCK), tcp(OLD_LANDLOCK)), (ALLOW, REFUSE));
            let set_flags = |extra| answer("ioctl", processor, &[3, 0x4008_6602], extra);
            assert_eq!((set_flags(ONLY_NAMESPACES), set_flags(LANDLOCK)), (ALLOW, REFUSE));
        }
    }

    #[test]
    fn calls_of_another_processor_end_the_process() {
        const KILL_PROCESS: u32 = 0x8000_0000;
        let [_, arguments] = programs(Processor::X86, ONLY_NAMESPACES);
        let foreign = Question { number: 0, processor: Processor::Arm, arguments: [0; 6] };
        assert_eq!(foreign.ask(&arguments), KILL_PROCESS);
    }
}
