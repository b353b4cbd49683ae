// Answers of an attack. An attack that fails for any reason but the system's refusal is «broken»: a mistake in its code
// must not pass for a sandbox that holds.
import os from "node:os";

export const allowed = (detail) => ({ outcome: "allowed", detail });
export const blocked = (detail) => ({ outcome: "blocked", detail });
/** The kernel does not have what would be attacked. */
export const absent = (detail) => ({ outcome: "absent", detail });
export const broken = (detail) => ({ outcome: "broken", detail });

const names = Object.fromEntries(Object.entries(os.constants.errno).map(([name, number]) => [number, name]));

/** The name of an error number. */
export const errnoName = (number) => names[number] ?? `errno ${number}`;

/** Whether the system has refused something, and how; undefined for any other kind of error. */
export const refusal = (error) =>
  typeof error?.code === "string" && /^E[A-Z0-9]+$/.test(error.code) ? error.code : undefined;

/** Does something that is either possible or refused by the system. */
export async function attempt(act) {
  try {
    return allowed(await act());
  } catch (error) {
    const code = refusal(error);
    return code ? blocked(code) : broken(String(error?.stack ?? error));
  }
}
