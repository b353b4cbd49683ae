// Attempts on files that do not belong to the function. The test has made the files and passes their paths.
import fs from "node:fs";
import path from "node:path";
import { ptr } from "bun:ffi";
import { call, isMissing, onVictim } from "./kernel.js";
import { absent, allowed, attempt, blocked, broken, errnoName } from "./outcome.js";

/** Reads a file; its size is all that is told of it. */
export const read = ({ path }) => attempt(() => fs.readFileSync(path).length);

export const list = ({ path }) => attempt(() => fs.readdirSync(path).length);

/** Looks for what every machine has in its root and no worker needs. */
export const listRoot = () =>
  attempt(() => fs.readdirSync("/")).then((found) => {
    if (found.outcome !== "allowed") return found;
    const foreign = found.detail.filter((name) => ["home", "root", "var", "boot", "sys", "opt", "srv"].includes(name));
    return foreign.length > 0 ? allowed(foreign) : blocked(found.detail);
  });

/** Makes a file in a folder that everybody may write to. */
export const create = ({ path: folder }) =>
  attempt(() => {
    const file = path.join(folder, "made-by-a-function");
    fs.writeFileSync(file, "x", { flag: "wx" });
    return file;
  });

/** Opens a file for writing, and leaves it as it is. */
export const openForWriting = ({ path }) => attempt(() => fs.closeSync(fs.openSync(path, fs.constants.O_WRONLY)));

/** Asks for what is known of a file without opening it. */
export const stat = ({ path }) => attempt(() => fs.statSync(path).size);

/** Sets the permissions of a file to what they are: who may do that may change them. */
export const chmod = ({ path }) => attempt(() => fs.chmodSync(path, fs.statSync(path).mode & 0o7777));

const AT_FDCWD = -100;

/** The permissions of a file as the attribute that holds them: those it has already. */
function permissions(path) {
  const [OWNER, GROUP, OTHERS, NOBODY] = [0x01, 0x04, 0x20, 0xffffffff];
  let mode = 0o700;
  try {
    mode = fs.statSync(path).mode;
  } catch {
    // The file cannot be seen, so the attempt fails as well.
  }
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32LE(2, 0);
  [[OWNER, mode >> 6], [GROUP, mode >> 3], [OTHERS, mode]].forEach(([tag, bits], index) => {
    bytes.writeUInt16LE(tag, 4 + index * 8);
    bytes.writeUInt16LE(bits & 7, 6 + index * 8);
    bytes.writeUInt32LE(NOBODY, 8 + index * 8);
  });
  return bytes;
}

const onFile = (result) => (isMissing(result) ? absent(errnoName(-result)) : onVictim(result));

/** Sets the permissions of a file by an attribute. */
export const setAttribute = ({ path }) => {
  const bytes = permissions(path);
  return onFile(call("setxattr", path, "system.posix_acl_access", bytes, bytes.length, 0));
};

/** The same by the call that newer kernels have. */
export const setAttributeAt = ({ path }) => {
  const bytes = permissions(path);
  const value = new BigUint64Array([BigInt(ptr(bytes)), BigInt(bytes.length)]);
  return onFile(call("setxattrat", AT_FDCWD, path, 0, "system.posix_acl_access", value, 16));
};

/** Sets the flags of a file to what they are. */
export const setFlags = ({ path }) => {
  const flags = new Uint8Array(24);
  call("file_getattr", AT_FDCWD, path, flags, flags.length, 0);
  return onFile(call("file_setattr", AT_FDCWD, path, flags, flags.length, 0));
};

/** A file that every worker has. */
const common = () => fs.openSync(Bun.main, "r");

/** Takes a lease on it, so that who opens it has to wait, and gives it back. */
export const lease = () => {
  const [F_SETLEASE, F_RDLCK, F_UNLCK] = [1024, 0, 2];
  const descriptor = common();
  const result = call("fcntl", descriptor, F_SETLEASE, F_RDLCK);
  call("fcntl", descriptor, F_SETLEASE, F_UNLCK);
  return onVictim(result);
};

/** Is told by a signal when its folder changes. */
export const notify = () => {
  const [F_NOTIFY, DN_CREATE] = [1026, 4];
  const folder = fs.openSync(path.dirname(Bun.main), "r");
  const result = call("fcntl", folder, F_NOTIFY, DN_CREATE);
  call("fcntl", folder, F_NOTIFY, 0);
  return onVictim(result);
};

const [LOCK_EX_NB, EWOULDBLOCK] = [2 | 4, 11];

/** Locks it until the worker ends. */
export const lock = () => {
  const result = call("flock", common(), LOCK_EX_NB);
  return result < 0 ? blocked(errnoName(-result)) : { outcome: "done" };
};

/** Sees whether somebody has locked it. */
export const isLocked = () => {
  const result = call("flock", common(), LOCK_EX_NB);
  return result === -EWOULDBLOCK ? allowed("it is locked") : blocked(result);
};

/** Makes another file beside one's own code, and takes it away again. */
export const writeBundle = () =>
  attempt(() => {
    const file = path.join(path.dirname(Bun.fileURLToPath(import.meta.url)), "made-by-a-function");
    fs.writeFileSync(file, "x", { flag: "wx" });
    fs.unlinkSync(file);
  });

/** Replaces the program or the shim that the next worker starts with. */
export const writeProgram = () =>
  attempt(() => {
    const file = path.join(path.dirname(Bun.main), "made-by-a-function");
    fs.writeFileSync(file, "x", { flag: "wx" });
    fs.unlinkSync(file);
  });

/** Reads through a link made where one may write. */
export const readThroughLink = ({ path: target }) =>
  attempt(() => {
    const link = path.join(process.env.TMPDIR, "link");
    fs.rmSync(link, { force: true });
    fs.symlinkSync(target, link);
    return fs.readFileSync(link).length;
  });

/** Gives a file a second name where one may write. */
export const hardLink = ({ path: target }) =>
  attempt(() => {
    const link = path.join(process.env.TMPDIR, "hard-link");
    fs.rmSync(link, { force: true });
    fs.linkSync(target, link);
    return fs.readFileSync(link).length;
  });

/** Moves a file and a folder from one folder of one's own to another, and gives the file a second name in the first. */
export const move = () =>
  attempt(() => {
    const folder = fs.mkdtempSync(path.join(process.env.TMPDIR, "move-"));
    const [from, to] = ["from", "to"].map((name) => path.join(folder, name));
    fs.mkdirSync(path.join(from, "folder"), { recursive: true });
    fs.mkdirSync(to);
    for (const file of ["file", "folder/inside"]) fs.writeFileSync(path.join(from, file), file);
    for (const name of ["file", "folder"]) fs.renameSync(path.join(from, name), path.join(to, name));
    fs.linkSync(path.join(to, "file"), path.join(from, "second"));
    const found = ["to/file", "to/folder/inside", "from/second"].map((it) => fs.readFileSync(path.join(folder, it), "utf8"));
    fs.rmSync(folder, { recursive: true });
    return found;
  });

/** Moves a file of one's own into a folder that everybody may write to, and takes it away again. */
export const moveOut = ({ path: folder }) =>
  attempt(() => {
    const [own, moved] = [path.join(process.env.TMPDIR, "own"), path.join(folder, "moved-by-a-function")];
    fs.writeFileSync(own, "x");
    fs.renameSync(own, moved);
    fs.unlinkSync(moved);
  });

/** Hears of every file that is made in a folder. */
export const watch = ({ path }) => {
  const IN_CREATE = 0x100;
  const watcher = call("inotify_init1", 0);
  if (watcher < 0) return onVictim(watcher);
  return onVictim(call("inotify_add_watch", watcher, path, IN_CREATE));
};

/** Looks into folders and files through descriptors that somebody forgot to close. */
export const descriptors = () => {
  const foreign = [];
  for (const name of fs.readdirSync("/proc/self/fd")) {
    let stat, link;
    try {
      [stat, link] = [fs.fstatSync(Number(name)), fs.readlinkSync(`/proc/self/fd/${name}`)];
    } catch {
      continue; // the folder's own descriptor
    }
    const isOwn = ["/proc/", "/dev/null", "/dev/urandom", "/bundle", "/tmp", process.env.TMPDIR].some((start) =>
      link.startsWith(start),
    );
    if ((stat.isDirectory() || stat.isFile() || stat.isBlockDevice()) && !isOwn && !/^\/(memfd|anon|dev\/shm)/.test(link)) {
      foreign.push(link);
    }
  }
  return foreign.length > 0 ? allowed(foreign) : blocked("none is open");
};

/** A variable of the daemon, or of anybody else. */
export const environment = ({ secret }) => {
  const own = fs.readFileSync("/proc/self/environ", "utf8");
  const shown = JSON.stringify([own, process.env, Bun.env]);
  if (!own.includes("PATH=")) return broken(own);
  return shown.includes(secret) ? allowed("the secret is there") : blocked(Object.keys(process.env));
};
