// Attempts on other processes: the daemon, another function's worker, a program of the machine. The test passes their
// ids.
import fs from "node:fs";
import { allowed, attempt, blocked, broken, errnoName } from "./outcome.js";
import { _exit, call, calls, clone, fork, kill, onVictim, pause, setName } from "./kernel.js";

/** Reaps a child; an interruption by a signal is no end. */
function waitFor(pid, status) {
  const EINTR = 4;
  while (call("wait4", pid, status, 0, 0) === -EINTR);
}

const own = () => new Set([String(process.pid), "self", "thread-self"]);

/** Whether a process can be seen at all. */
export const see = ({ pid }) => {
  const pids = fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.includes(pid) ? allowed(`${pids.length} processes`) : blocked(pids.filter((it) => !own().has(it)));
};

/** Where the links of a folder lead that are still there when they are looked at; fails if none is. */
const targets = (folder) => {
  let closed;
  const found = fs.readdirSync(folder).flatMap((name) => {
    try {
      return [fs.readlinkSync(`${folder}/${name}`)];
    } catch (error) {
      // The process goes on working, and closes files meanwhile.
      if (error.code !== "ENOENT") throw error;
      closed = error;
      return [];
    }
  });
  if (found.length === 0 && closed) throw closed;
  return found.length;
};

/** Reads one file of a process. */
export const readProc = ({ pid, file }) =>
  attempt(() => {
    if (file === "root") return fs.readdirSync(`/proc/${pid}/root`).length;
    if (file === "cwd") return fs.readdirSync(`/proc/${pid}/cwd/`).length;
    // The same user may list descriptor numbers; the secret is where they lead.
    if (file === "fd") return targets(`/proc/${pid}/fd`);
    // Permission for memory is checked when it is opened.
    if (file === "mem") return fs.closeSync(fs.openSync(`/proc/${pid}/mem`, "r+"));
    return fs.readFileSync(`/proc/${pid}/${file}`).length;
  });

/** Sends a signal. */
export const signal = ({ pid, number }) => onVictim(call("kill", Number(pid), Number(number)));

/** The same by a descriptor of the process, which other rules of the kernel check. */
export const signalByDescriptor = ({ pid, number }) => {
  const descriptor = call("pidfd_open", Number(pid), 0);
  return descriptor < 0 ? onVictim(descriptor) : onVictim(call("pidfd_send_signal", descriptor, Number(number), 0, 0));
};

/** Lowers a limit to what it is already. */
export const prlimit = ({ pid }) => {
  const RLIMIT_CORE = 4;
  return onVictim(call("prlimit64", Number(pid), RLIMIT_CORE, new Uint8Array(16), 0));
};

export const priority = ({ pid }) => onVictim(call("setpriority", 0, Number(pid), 19));

/** Confines it to the first processor. */
export const affinity = ({ pid }) => onVictim(call("sched_setaffinity", Number(pid), 8, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0])));

/** Lets it run only when nobody else wants to (SCHED_IDLE). */
export const scheduler = ({ pid }) => onVictim(call("sched_setscheduler", Number(pid), 5, new Uint8Array(4)));

export const ioPriority = ({ pid }) => onVictim(call("ioprio_set", 1, Number(pid), (3 << 13) | 0));

/** Lowers the priority of all processes of its user, which needs no number. */
export const priorityOfUser = () => {
  const PRIO_USER = 2;
  call("setpriority", PRIO_USER, 0, 5);
  return { outcome: "done" };
};

/** Attaches as a debugger does, without stopping it. */
export const trace = ({ pid }) => onVictim(call("ptrace", 0x4206, Number(pid), 0, 0));

export const readMemory = ({ pid }) => {
  const iovec = new BigUint64Array([4096n, 8n]);
  return onVictim(call("process_vm_readv", Number(pid), iovec, 1, iovec, 1, 0));
};

/** Takes a copy of its standard input. */
export const stealDescriptor = ({ pid }) => {
  const descriptor = call("pidfd_open", Number(pid), 0);
  return descriptor < 0 ? onVictim(descriptor) : onVictim(call("pidfd_getfd", descriptor, 0, 0));
};

/** Whether a number, as this namespace has them, is that of one of our own threads; one that has just ended has none. */
function isOwn(pid) {
  return fs.readdirSync("/proc/self/task").some((task) => {
    try {
      // The last number belongs to the innermost namespace, regardless of whose `/proc` is mounted.
      return fs.readFileSync(`/proc/self/task/${task}/status`, "utf8").match(/^NSpid:.*?(\d+)$/m)[1] === String(pid);
    } catch {
      return false;
    }
  });
}

/**
 * Kills everybody. It does so only after it has seen that nobody but its own would be hit: it asks for each number first
 * whether a signal could be sent, so that it ends nothing where there is no sandbox.
 */
export const killAll = ({ max }) => {
  const canSignal = (pid) => kill(pid, 0) === 0;
  for (let pid = 1; pid <= Number(max); pid++) {
    if (canSignal(pid) && !isOwn(pid) && canSignal(pid)) {
      return allowed(`a signal to process ${pid} would arrive; none was sent`);
    }
  }
  const result = call("kill", -1, 9);
  return blocked(result < 0 ? errnoName(-result) : "nobody was hit");
};

/** Starts another program. */
export const shell = () =>
  attempt(async () => {
    const child = Bun.spawn(["/bin/sh", "-c", "exit 7"], { stdio: ["ignore", "ignore", "ignore"] });
    const code = await child.exited;
    if (code !== 7) throw new Error(`exit code ${code}`);
  });

/** Starts Bun itself, which there must be: whether it works at all tells other attacks from those that cannot begin. */
export const bun = () =>
  attempt(async () => {
    const child = Bun.spawn([process.execPath, "-e", "process.exit(7)"], { stdio: ["ignore", "ignore", "pipe"] });
    const code = await child.exited;
    if (code !== 7) throw new Error(`exit code ${code}: ${await new Response(child.stderr).text()}`);
  });

const SLEEP = "setInterval(() => {}, 1000)";

/** Leaves processes behind: one in a session of its own, and one whose parent is gone. They carry a mark in their arguments. */
export const orphans = async ({ mark }) => {
  const options = { stdio: ["ignore", "ignore", "ignore"], detached: true, env: {} };
  const first = Bun.spawn([process.execPath, "-e", SLEEP, mark], options);
  const nested = `Bun.spawn([process.execPath, "-e", ${JSON.stringify(SLEEP)}, ${JSON.stringify(mark)}], ${JSON.stringify(options)}).unref(); process.exit(0)`;
  const second = Bun.spawn([process.execPath, "-e", nested], { ...options, stdio: ["ignore", "ignore", "pipe"] });
  const code = await second.exited;
  if (code !== 0) return broken(await new Response(second.stderr).text());
  first.unref();
  return { outcome: "done", detail: { first: first.pid, second: second.pid } };
};

/** Leaves the session and the group that the daemon would end: a leader cannot, and a child can. */
export const leaveGroup = async () => {
  const [setsid, setpgid] = [calls.setsid, calls.setpgid].map(Number);
  const code = `const { symbols } = require("bun:ffi").dlopen("libc.so.6", {
      syscall: { args: Array(7).fill("i64"), returns: "i64" },
    });
    const done = [[${setpgid}], [${setsid}]].map(([number]) => Number(symbols.syscall(number, 0, 0, 0, 0, 0, 0)));
    console.log(JSON.stringify(done));`;
  const child = Bun.spawn([process.execPath, "-e", code], { stdio: ["ignore", "pipe", "pipe"], env: {} });
  const [said, wrong] = await Promise.all([child.stdout, child.stderr].map((it) => new Response(it).text()));
  if ((await child.exited) !== 0) return broken(wrong);
  return JSON.parse(said).every((result) => result === -1) ? blocked(said.trim()) : allowed(said.trim());
};

/** Has the kernel not end it with the process that has started it. */
export const outlive = () => {
  const [PR_SET_PDEATHSIG, SIGKILL] = [1, 9];
  const result = call("prctl", PR_SET_PDEATHSIG, 0, 0, 0, 0);
  if (result < 0) return blocked(errnoName(-result));
  call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  return allowed("it would go on");
};

/** Sets one of its own limits to what it is. */
const keepLimit = (which) => {
  const limit = new Uint8Array(16);
  call("prlimit64", 0, which, 0, limit);
  return onVictim(call("prlimit64", 0, which, limit, 0));
};

/** The limit of core files: from 1 to 0 would have a program of the machine read the worker's memory. */
export const coreLimit = () => keepLimit(4);

/** The limit of resident memory, which is a half of the daemon's mark. */
export const mark = () => keepLimit(5);

/** Makes a process beside itself, whose parent is its own. */
export const sibling = () => {
  const CLONE_PARENT = 0x8000;
  const result = clone(CLONE_PARENT);
  return result < 0 ? blocked(errnoName(-result)) : allowed(result);
};

/** Many processes that only wait: at most `max` of them. */
export const forkBomb = ({ max }) => {
  const children = [];
  let error = 0;
  while (children.length < Number(max)) {
    const child = fork();
    if (child === 0) for (;;) pause();
    if (child < 0) {
      error = 1;
      break;
    }
    children.push(child);
  }
  for (const child of children) call("kill", child, 9);
  for (const child of children) waitFor(child, new Int32Array(1));
  return error ? blocked(`after ${children.length} processes`) : allowed(`${children.length} processes`);
};

/** Processes that have ended and that nobody waits for: their parents are gone. They count as long as nobody reaps them. */
export const zombies = ({ count, mark }) => {
  setName(mark);
  let made = 0;
  for (; made < Number(count); made++) {
    const child = fork();
    if (child === 0) {
      fork();
      _exit(0);
    }
    if (child < 0) return blocked(`after ${made}`);
    waitFor(child, new Int32Array(1));
  }
  const isLeft = (pid) => {
    try {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
      return stat.includes(`(${mark}) Z`);
    } catch {
      return false; // it has just gone
    }
  };
  const left = fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name) && isLeft(name)).length;
  return left > 200 ? allowed(`${left} of ${made} stay`) : blocked(`${left} of ${made} stay`);
};
