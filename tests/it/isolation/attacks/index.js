// A function that tries to escape from its sandbox, one attempt per invocation: `?attack=name` and its parameters. It
// runs in the tests only, against a daemon, processes, files and sockets that the test has made.
import * as files from "./files.js";
import * as kernel from "./kernel.js";
import * as processes from "./processes.js";
import * as resources from "./resources.js";
import * as sockets from "./sockets.js";
import { broken } from "./outcome.js";

const attacks = { files, kernel, processes, resources, sockets };

export default async (request) => {
  const query = Object.fromEntries(new URL(request.url).searchParams);
  const [group, name] = query.attack.split(".");
  const attack = attacks[group]?.[name];
  if (!attack) return Response.json(broken(`there is no attack ${query.attack}`));
  try {
    return Response.json(await attack(query));
  } catch (error) {
    return Response.json(broken(String(error?.stack ?? error)));
  }
};
