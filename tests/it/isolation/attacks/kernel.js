// System calls made directly through the C library that Bun itself uses, without any JavaScript API in between.
import { CFunction, dlopen, ptr, read, toArrayBuffer } from "bun:ffi";
import { allowed, blocked, absent, broken, errnoName } from "./outcome.js";

const libc = dlopen("libc.so.6", {
  syscall: { args: Array(7).fill("i64"), returns: "i64" },
  fork: { args: [], returns: "i32" },
  pause: { args: [], returns: "i32" },
  kill: { args: ["i32", "i32"], returns: "i32" },
  _exit: { args: ["i32"], returns: "void" },
  __errno_location: { args: [], returns: "ptr" },
}).symbols;

export const { fork, kill, pause, _exit } = libc;

const [EPERM, EACCES, ENOTTY, ENOSYS, EPROTONOSUPPORT, EOPNOTSUPP, EAFNOSUPPORT] = [1, 13, 25, 38, 93, 95, 97];

const isArm = process.arch === "arm64";
const number = (x64, arm64) => BigInt(isArm ? arm64 : x64);

/** Numbers of the system calls used here; none on arm64 where that has no such call. */
export const calls = {
  mmap: number(9, 222),
  io_setup: number(206, 0),
  setxattr: number(188, 5),
  fcntl: number(72, 25),
  flock: number(73, 32),
  mq_open: number(240, 180),
  msgget: number(68, 186),
  semget: number(64, 190),
  setsockopt: number(54, 208),
  syncfs: number(306, 267),
  seccomp: number(317, 277),
  shmget: number(29, 194),
  socket: number(41, 198),
  connect: number(42, 203),
  clone: number(56, 220),
  wait4: number(61, 260),
  kill: number(62, 129),
  epoll_create1: number(291, 20),
  epoll_ctl: number(233, 21),
  eventfd2: number(290, 19),
  ftruncate: number(77, 46),
  ptrace: number(101, 117),
  syslog: number(103, 116),
  setuid: number(105, 146),
  setsid: number(112, 157),
  setpgid: number(109, 154),
  personality: number(135, 92),
  setpriority: number(141, 140),
  sched_setscheduler: number(144, 119),
  pivot_root: number(155, 41),
  chroot: number(161, 51),
  prctl: number(157, 167),
  acct: number(163, 89),
  settimeofday: number(164, 170),
  mount: number(165, 40),
  umount2: number(166, 39),
  swapon: number(167, 224),
  reboot: number(169, 142),
  sethostname: number(170, 161),
  init_module: number(175, 105),
  delete_module: number(176, 106),
  quotactl: number(179, 60),
  sched_setaffinity: number(203, 122),
  add_key: number(248, 217),
  request_key: number(249, 218),
  keyctl: number(250, 219),
  ioprio_set: number(251, 30),
  mknodat: number(259, 33),
  inotify_add_watch: number(254, 27),
  inotify_init1: number(294, 26),
  unshare: number(272, 97),
  move_pages: number(279, 239),
  perf_event_open: number(298, 241),
  fanotify_init: number(300, 262),
  prlimit64: number(302, 261),
  name_to_handle_at: number(303, 264),
  open_by_handle_at: number(304, 265),
  setns: number(308, 268),
  process_vm_readv: number(310, 270),
  process_vm_writev: number(311, 271),
  kcmp: number(312, 272),
  finit_module: number(313, 273),
  memfd_create: number(319, 279),
  kexec_file_load: number(320, 294),
  bpf: number(321, 280),
  userfaultfd: number(323, 282),
  pidfd_send_signal: number(424, 424),
  io_uring_setup: number(425, 425),
  open_tree: number(428, 428),
  move_mount: number(429, 429),
  fsopen: number(430, 430),
  pidfd_open: number(434, 434),
  clone3: number(435, 435),
  pidfd_getfd: number(438, 438),
  process_madvise: number(440, 440),
  mount_setattr: number(442, 442),
  memfd_secret: number(447, 447),
  process_mrelease: number(448, 448),
  set_mempolicy_home_node: number(450, 450),
  cachestat: number(451, 451),
  statmount: number(457, 457),
  listmount: number(458, 458),
  lsm_list_modules: number(461, 461),
  setxattrat: number(463, 463),
  open_tree_attr: number(467, 467),
  file_getattr: number(468, 468),
  file_setattr: number(469, 469),
};

/** Whether the process has been asked for what its kernel or its file system does not have. */
export const isMissing = (result) => [ENOSYS, EOPNOTSUPP, ENOTTY].includes(-result);

const kept = [];

/** A number, text or bytes as an argument; what is pointed at stays alive. */
function argument(value) {
  if (typeof value === "bigint") return value;
  if (typeof value === "number") return BigInt(Math.trunc(value));
  const bytes = typeof value === "string" ? Buffer.from(`${value}\0`) : value;
  kept.push(bytes);
  if (kept.length > 64) kept.shift();
  return BigInt(ptr(bytes));
}

/** Makes a system call by its number: the result, or minus the error number. */
export function raw(number, ...args) {
  const given = args.map(argument);
  while (given.length < 6) given.push(0n);
  const result = Number(libc.syscall(number, ...given));
  return result === -1 ? -read.i32(libc.__errno_location(), 0) : result;
}

/** The same by its name. */
export const call = (name, ...args) => raw(calls[name], ...args);

/** Gives this process, and those it makes, a name that can be seen from outside; at most 15 bytes. */
export function setName(name) {
  const PR_SET_NAME = 15;
  call("prctl", PR_SET_NAME, name, 0, 0, 0);
}

/** The outcome of a call on something that belongs to another: no such thing means that it cannot be seen. */
export function onVictim(result) {
  if (result >= 0) return allowed(result);
  const name = errnoName(-result);
  return ["EPERM", "EACCES", "ESRCH", "ENOENT"].includes(name) ? blocked(name) : allowed(name);
}


/** The outcome of a call of which only matters whether the kernel does it at all: arguments are made to be wrong. */
function reached(result) {
  if ([ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT].includes(-result)) return absent(errnoName(-result));
  if (-result === EPERM || -result === EACCES) return blocked(errnoName(-result));
  return allowed(result >= 0 ? result : errnoName(-result));
}

const [CLONE_NEWUSER, SIGCHLD, AT_FDCWD] = [0x10000000, 17, -100];
const BAD = -1;
const nothing = new Uint8Array(64);

/** A child that ends at once, if it can be made at all. */
export function clone(flags) {
  const result = call("clone", flags | SIGCHLD);
  if (result === 0) _exit(0);
  return result;
}

/**
 * What nobody but the administrator of a machine needs, and what has been the way out of containers. Each call is made
 * so that it does no harm where it is allowed: an answer other than «not permitted» shows that the kernel has looked at
 * its arguments.
 */
const probes = {
  mount: () => call("mount", 0, "/nonexistent-levain", 0, 0, 0),
  umount2: () => call("umount2", "/nonexistent-levain", 0),
  pivot_root: () => call("pivot_root", "/nonexistent-levain", "/nonexistent-levain"),
  chroot: () => call("chroot", "/nonexistent-levain"),
  open_tree: () => call("open_tree", BAD, "x", 1),
  move_mount: () => call("move_mount", BAD, "", BAD, "", 0),
  fsopen: () => call("fsopen", "nonexistent-levain", 0),
  mount_setattr: () => call("mount_setattr", BAD, "x", 0, nothing, 32),
  unshare: () => call("unshare", CLONE_NEWUSER),
  setns: () => call("setns", BAD, 0),
  "clone of a user namespace": () => clone(CLONE_NEWUSER),
  ptrace: () => call("ptrace", 0x4206, 0x3fffffff, 0, 0),
  process_vm_readv: () => call("process_vm_readv", 0x3fffffff, nothing, 1, nothing, 1, 0),
  process_vm_writev: () => call("process_vm_writev", 0x3fffffff, nothing, 1, nothing, 1, 0),
  pidfd_getfd: () => call("pidfd_getfd", BAD, 0, 0),
  process_madvise: () => call("process_madvise", BAD, nothing, 1, 20, 0),
  kcmp: () => call("kcmp", process.pid, process.pid, 99, 0, 0),
  bpf: () => call("bpf", 9999, 0, 0),
  perf_event_open: () => call("perf_event_open", 0, 0, -1, -1, 0),
  userfaultfd: () => call("userfaultfd", 0xdead),
  io_uring_setup: () => call("io_uring_setup", 0, 0),
  keyctl: () => call("keyctl", 0, -3, 0),
  add_key: () => call("add_key", "user", "levain", "x", 1, -2),
  request_key: () => call("request_key", "user", "levain-nonexistent", 0, 0),
  open_by_handle_at: () => call("open_by_handle_at", BAD, nothing, 0),
  name_to_handle_at: () => call("name_to_handle_at", AT_FDCWD, "/", 0, 0, 0),
  fanotify_init: () => call("fanotify_init", 0x7fffffff, 0),
  personality: () => call("personality", 0x0040000),
  "mknod of a device": () => call("mknodat", AT_FDCWD, "levain-null", 0o20666, (1 << 8) | 3),
  reboot: () => call("reboot", 0, 0, 0, 0),
  kexec_file_load: () => call("kexec_file_load", BAD, BAD, 0, 0, 0xdead),
  init_module: () => call("init_module", 0, 0, ""),
  finit_module: () => call("finit_module", BAD, "", 0),
  delete_module: () => call("delete_module", 0, 0),
  swapon: () => call("swapon", "/nonexistent-levain", 0),
  acct: () => call("acct", "/nonexistent-levain"),
  sethostname: () => call("sethostname", "", -1),
  settimeofday: () => call("settimeofday", 0, 0),
  "syslog of the kernel": () => call("syslog", 10, 0, 0),
  quotactl: () => call("quotactl", (0x800007 << 8) | 0, "/nonexistent-levain", 0, 0),
  move_pages: () => call("move_pages", 0, 0, 0, 0, 0, 0xdead),
  io_setup: () => call("io_setup", 1, new Uint8Array(8)),
  inotify_init1: () => call("inotify_init1", 0),
  semget: () => call("semget", 0x4c7e0001, 1, 0),
  msgget: () => call("msgget", 0x4c7e0001, 0),
  mq_open: () => call("mq_open", "levain-nonexistent", 0, 0, 0),
  memfd_secret: () => call("memfd_secret", 0xdead),
  process_mrelease: () => call("process_mrelease", BAD, 0),
  set_mempolicy_home_node: () => call("set_mempolicy_home_node", 0, 0, 0xdead, 0xdead),
  cachestat: () => call("cachestat", BAD, nothing, nothing, 0),
  statmount: () => call("statmount", 0, 0, 0, 0xdead),
  listmount: () => call("listmount", 0, 0, 0, 0xdead),
  lsm_list_modules: () => call("lsm_list_modules", 0, 0, 0xdead),
  open_tree_attr: () => call("open_tree_attr", BAD, "x", 0xdead, 0, 0),
  syncfs: () => call("syncfs", BAD),
  "prctl about who shares a processor core": () => call("prctl", 62, 0, 0, 0, new Uint8Array(8)),
  "memfd_create of huge pages": () => call("memfd_create", "levain", 4),
  "mmap of huge pages": () => call("mmap", 0, 2 << 20, 3, 0x40022, BAD, 0),
  "setsockopt of a protocol on top of TCP": () => call("setsockopt", call("socket", 2, 1, 0), 6, 31, "x", 1),
  "socket of UDP-Lite": () => call("socket", 2, 2, 136),
  "socket of MPTCP": () => call("socket", 2, 1, 262),
  "socket of SCTP": () => call("socket", 2, 1, 132),
  "socket of packets (AF_PACKET)": () => call("socket", 17, 3, 0),
  "socket of a virtual machine's host (AF_VSOCK)": () => call("socket", 40, 1, 0),
  "socket of the kernel's cryptography (AF_ALG)": () => call("socket", 38, 5, 0),
  "socket of Bluetooth": () => call("socket", 31, 3, 0),
  "socket of IPsec keys (AF_KEY)": () => call("socket", 15, 3, 2),
  "socket of XDP": () => call("socket", 44, 3, 0),
  "raw IP socket": () => call("socket", 2, 3, 1),
  "netlink of the firewall": () => call("socket", 16, 3, 12),
  "netlink of IPsec": () => call("socket", 16, 3, 6),
  "netlink of the audit log": () => call("socket", 16, 3, 9),
  "netlink of open sockets": () => call("socket", 16, 3, 4),
};

/** The system call `name`. */
export const syscall = (query) => {
  const probe = probes[query.name];
  return probe ? reached(probe()) : broken(`no such call: ${query.name}`);
};

/** clone3 hides its flags from a filter: it has to look as if it did not exist, so that the C library uses clone. */
export const clone3 = () => {
  const result = call("clone3", nothing, 64);
  if (result === 0) _exit(0);
  return -result === ENOSYS || -result === EPERM ? blocked(errnoName(-result)) : allowed(result);
};

/** The system calls of another architecture have other numbers, which a filter for this one does not know. */
export const foreignCalls = () => {
  if (process.arch !== "x64") return absent(process.arch);
  // Call numbers of x32: getpid, which is never filtered, shows whether the kernel supports them.
  const X32 = 0x40000000n;
  if (raw(X32 | 39n) === -ENOSYS) return absent("x32 is not there");
  return reached(raw(X32 | calls.mount, 0, "/nonexistent-levain", 0, 0, 0));
};

/** Asks whether the kernel takes 32-bit calls (`int 0x80`), with machine code of our own. */
export const call32 = () => {
  if (process.arch !== "x64") return absent(process.arch);
  const [PROT_ALL, MAP_PRIVATE_ANONYMOUS] = [7, 0x22];
  const place = call("mmap", 0, 4096, PROT_ALL, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (place < 0) return blocked(`mmap ${errnoName(-place)}`);
  // push rbx; mov eax, 61 (chroot); xor ebx, ebx; int 0x80; pop rbx; ret
  const code = Buffer.from([0x53, 0xb8, 61, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80, 0x5b, 0xc3]);
  new Uint8Array(toArrayBuffer(place, 0, 4096)).set(code);
  const run = new CFunction({ ptr: place, args: [], returns: "i32" });
  return reached(run());
};

/** What the kernel itself says of this process. */
const status = async (key) => {
  const text = await Bun.file("/proc/self/status").text();
  return text.split("\n").find((line) => line.startsWith(`${key}:`))?.split("\t").at(-1).trim();
};

export const capabilities = async () => {
  const sets = await Promise.all(["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"].map(status));
  const [bounding, ...usable] = [sets.pop(), ...sets];
  if (usable.some((set) => set === undefined)) return broken(sets);
  const detail = { usable, bounding };
  return usable.every((set) => /^0+$/.test(set)) ? blocked(detail) : allowed(detail);
};

export const newPrivileges = async () => {
  const value = await status("NoNewPrivs");
  return value === "1" ? blocked(value) : value === "0" ? allowed(value) : broken(value);
};

export const unfiltered = async () => {
  const value = await status("Seccomp");
  return value === "2" ? blocked(value) : value === "0" ? allowed(value) : broken(value);
};

/** Root's number, inside or as it is outside. */
export const becomeRoot = () => {
  const result = call("setuid", 0);
  return result < 0 ? blocked(errnoName(-result)) : allowed(process.getuid());
};

/**
 * Walks the numbers of system calls: `expected` has a letter for each from 0 on. Those that should be refused or allowed
 * are not carried out: a filter of this thread's own has the kernel ask a debugger about each call with a mark, there is
 * none, and so the answer is ENOSYS. The refusal of another filter goes before that. Those that should be hidden are
 * carried out, with arguments that mean nothing.
 */
export const walk = ({ expected }) => {
  const [MARK, SIXTH_ARGUMENT, SET_MODE_FILTER] = [0x6c657661, 56, 1];
  const [LOAD, JUMP_IF_EQUAL, RETURN, TRACE, ALLOW] = [0x20, 0x15, 0x06, 0x7ff00000, 0x7fff0000];
  const program = Buffer.alloc(32);
  [[LOAD, 0, 0, SIXTH_ARGUMENT], [JUMP_IF_EQUAL, 0, 1, MARK], [RETURN, 0, 0, TRACE], [RETURN, 0, 0, ALLOW]].forEach(
    ([code, jt, jf, k], index) => {
      program.writeUInt16LE(code, index * 8);
      program.writeUInt8(jt, index * 8 + 2);
      program.writeUInt8(jf, index * 8 + 3);
      program.writeUInt32LE(k, index * 8 + 4);
    },
  );
  const result = call("seccomp", SET_MODE_FILTER, 0, new BigUint64Array([4n, BigInt(ptr(program))]));
  if (result < 0) return broken(`seccomp ${errnoName(-result)}`);
  const marked = (number) => -raw(BigInt(number), 0, 0, 0, 0, 0, MARK);
  const made = (number) => -raw(BigInt(number), BAD, BAD, BAD, BAD, BAD, BAD);
  const [open, shut] = [[], []];
  [...expected].forEach((letter, number) => {
    if (letter === "R" && marked(number) !== EPERM) open.push(number);
    if (letter === "H" && made(number) !== ENOSYS) open.push(number);
    if (letter === "A" && marked(number) !== ENOSYS) shut.push(number);
  });
  if (shut.length > 0) return broken(`not allowed: ${shut}`);
  return open.length > 0 ? allowed(`neither refused nor hidden: ${open}`) : blocked(`${expected.length} numbers`);
};
