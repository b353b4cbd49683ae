// Attempts to use up resources. Each has a bound of its own, so that it does no harm where the sandbox sets none.
import fs from "node:fs";
import path from "node:path";
import { dlopen, toArrayBuffer } from "bun:ffi";
import { allowed, blocked, broken, errnoName, refusal } from "./outcome.js";
import { call, setName } from "./kernel.js";

const MIB = 1024 * 1024;
const own = (name) => path.join(process.env.TMPDIR, name);

/** Does something again and again until the system refuses it. */
function until(max, act) {
  let count = 0;
  try {
    for (; count < max; count++) act(count);
  } catch (error) {
    const code = refusal(error);
    return code ? blocked(`${code} after ${count}`) : broken(String(error?.stack ?? error));
  }
  return allowed(`${count}`);
}

/** Writes files of 16 MiB. */
export const fillDisk = ({ megabytes }) => {
  const folder = own("fill");
  fs.mkdirSync(folder, { recursive: true });
  const block = new Uint8Array(MIB);
  try {
    return until(Number(megabytes), (index) => fs.appendFileSync(path.join(folder, String(index >> 4)), block));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
};

/** Makes a file that is larger than any disk, of nothing but a hole. */
export const hugeFile = () => {
  const file = own("huge");
  const descriptor = fs.openSync(file, "w");
  try {
    const result = call("ftruncate", descriptor, 4 * 1024 * 1024 * MIB);
    return result < 0 ? blocked(errnoName(-result)) : allowed("4 TiB");
  } finally {
    fs.closeSync(descriptor);
    fs.rmSync(file, { force: true });
  }
};

/** Makes files without content: each takes memory of the kernel all the same. */
export const manyFiles = ({ max }) => {
  const folder = own("many");
  fs.mkdirSync(folder, { recursive: true });
  try {
    return until(Number(max), (index) => fs.closeSync(fs.openSync(path.join(folder, String(index)), "wx")));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
};

export const manyDescriptors = ({ max }) => {
  const open = [];
  try {
    return until(Number(max), () => open.push(fs.openSync("/dev/null", "r")));
  } finally {
    open.forEach((descriptor) => fs.closeSync(descriptor));
  }
};

/** Instances of inotify, of which each user has about a hundred. */
export const manyWatchers = ({ max }) => {
  const open = [];
  try {
    while (open.length < Number(max)) {
      const descriptor = call("inotify_init1", 0);
      if (descriptor < 0) return blocked(`${errnoName(-descriptor)} after ${open.length}`);
      open.push(descriptor);
    }
    return allowed(`${max}`);
  } finally {
    open.forEach((descriptor) => fs.closeSync(descriptor));
  }
};

/** Watches of epoll, which the kernel counts for each user: every instance watches every file. */
export const manyWatches = ({ max }) => {
  const [EPOLL_CTL_ADD, INSTANCES] = [1, 100];
  const open = [];
  const made = (descriptor) => {
    if (descriptor >= 0) open.push(descriptor);
    return descriptor;
  };
  try {
    const instances = Array.from({ length: INSTANCES }, () => made(call("epoll_create1", 0)));
    const refused = instances.find((it) => it < 0);
    if (refused !== undefined) return blocked(errnoName(-refused));
    const event = new Uint8Array(16);
    for (let watches = 0; watches < Number(max); watches += INSTANCES) {
      const file = made(call("eventfd2", 0, 0));
      const results = file < 0 ? [file] : instances.map((it) => call("epoll_ctl", it, EPOLL_CTL_ADD, file, event));
      const failed = results.find((it) => it < 0);
      if (failed !== undefined) return blocked(`${errnoName(-failed)} after ${watches}`);
    }
    return allowed(`${max}`);
  } finally {
    open.forEach((descriptor) => fs.closeSync(descriptor));
  }
};

const eat = async (megabytes) => {
  const kept = [];
  for (let eaten = 0; eaten < megabytes; eaten += 8) {
    // The array is filled, so that its pages are really used.
    kept.push(new Uint8Array(8 * MIB).fill(kept.length + 1));
    await Bun.sleep(5);
  }
  // Long enough for the daemon to notice.
  await Bun.sleep(500);
  return kept.length;
};

/** Memory of its own. */
export const memory = async ({ megabytes }) => allowed(`${(await eat(Number(megabytes))) * 8} MiB`);

/** The same all at once, in less time than between two looks. */
export const memoryAtOnce = async ({ megabytes }) => {
  const kept = new Uint8Array(Number(megabytes) * MIB).fill(1);
  await Bun.sleep(500);
  return allowed(`${kept.length / MIB} MiB`);
};

/** Memory of a child process. */
export const memoryOfChild = async ({ megabytes }) => {
  const code = `const MIB = 1024 * 1024; await (${eat})(${Number(megabytes)});`;
  const child = Bun.spawn([process.execPath, "-e", code], { stdio: ["ignore", "ignore", "pipe"], env: {} });
  const status = await child.exited;
  if (status === 0) return allowed(`${megabytes} MiB`);
  if (child.signalCode) return blocked(child.signalCode);
  return broken(`exit ${status}: ${await new Response(child.stderr).text()}`);
};

/** Memory that counts as shared: pages of files that exist in memory only. */
export const memoryOfFile = async ({ megabytes }) => {
  const block = new Uint8Array(8 * MIB).fill(1);
  const descriptors = [];
  try {
    for (let written = 0; written < Number(megabytes); written += 8) {
      // Several files, because the size of one file is limited.
      if (written % 128 === 0) descriptors.push(call("memfd_create", "levain", 0));
      if (descriptors.at(-1) < 0) return blocked(errnoName(-descriptors.at(-1)));
      fs.writeSync(descriptors.at(-1), block);
      await Bun.sleep(5);
    }
  } catch (error) {
    return refusal(error) ? blocked(refusal(error)) : broken(String(error?.stack ?? error));
  }
  await Bun.sleep(500);
  return allowed(`${megabytes} MiB`);
};

/** Memory mapped as shared between processes, without any file. It goes with the process. */
export const memoryOfMapping = async ({ megabytes }) => {
  const [READ_WRITE, SHARED_ANONYMOUS] = [3, 0x21];
  const length = 8 * MIB;
  for (let eaten = 0; eaten < Number(megabytes); eaten += 8) {
    const place = call("mmap", 0, length, READ_WRITE, SHARED_ANONYMOUS, -1, 0);
    if (place < 0) return blocked(errnoName(-place));
    new Uint8Array(toArrayBuffer(place, 0, length)).fill(1);
    await Bun.sleep(5);
  }
  await Bun.sleep(500);
  return allowed(`${megabytes} MiB`);
};

/** Never gives the processor back. */
export const spin = () => {
  for (;;);
};

export const exit = () => process.exit(3);

export const abort = () => process.abort();

/** Reads from nowhere. */
export const nullPointer = () => {
  const { symbols } = dlopen("libc.so.6", { strlen: { args: ["u64"], returns: "u64" } });
  return allowed(symbols.strlen(8n));
};

/** Goes on after its answer, and says so now and then. */
export const goOn = ({ mark }) => {
  setName(mark);
  let count = 0;
  setInterval(() => console.log(`still here ${++count}`), 20);
  return { outcome: "done", detail: process.pid };
};
