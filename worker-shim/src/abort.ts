// Listeners of an AbortSignal run in the context they are added in. Bun calls those of `req.signal` out of nowhere when the connection is
// dropped, so that what they print would belong to no invocation.

import { currentInvocation } from "./context.ts";

type Listener = ((event: Event) => unknown) & { handleEvent?: (event: Event) => unknown };

/** What stands for a listener on a signal, so that it can be removed, and is called once when it is added twice. */
const standIns = new WeakMap<EventTarget, WeakMap<Listener, Listener>>();
const originals = new WeakMap<Listener, Listener>();

/** The listener, tied to the invocation that runs; itself outside of all. */
function tie(signal: EventTarget, listener: Listener): Listener {
  const context = currentInvocation.getStore();
  const isListener = typeof listener === "function" || (typeof listener === "object" && listener !== null);
  if (!context || !isListener) return listener;
  let ofSignal = standIns.get(signal);
  if (!ofSignal) standIns.set(signal, (ofSignal = new WeakMap()));
  let found = ofSignal.get(listener);
  if (!found) {
    const call = (event: Event) => (typeof listener === "function" ? listener.call(signal, event) : listener.handleEvent?.(event));
    found = (event) => currentInvocation.run(context, call, event);
    ofSignal.set(listener, found);
    originals.set(found, listener);
  }
  return found;
}

/** Replaces what adds and removes listeners of AbortSignals, and of no other event target. */
export function keepContextOfAbortListeners(): void {
  const prototype = AbortSignal.prototype;
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  const onabort = Object.getOwnPropertyDescriptor(prototype, "onabort")!;
  const define = (name: string, property: PropertyDescriptor) =>
    Object.defineProperty(prototype, name, { configurable: true, enumerable: true, ...property });
  define("addEventListener", {
    writable: true,
    value: function (this: AbortSignal, type: string, listener: any, options?: any) {
      return addEventListener.call(this, type, tie(this, listener), options);
    },
  });
  define("removeEventListener", {
    writable: true,
    value: function (this: AbortSignal, type: string, listener: any, options?: any) {
      const standIn = standIns.get(this)?.get(listener);
      if (standIn) removeEventListener.call(this, type, standIn, options);
      // It is itself where it was added outside every invocation.
      return removeEventListener.call(this, type, listener, options);
    },
  });
  define("onabort", {
    get(this: AbortSignal) {
      const listener = onabort.get!.call(this);
      return originals.get(listener) ?? listener;
    },
    set(this: AbortSignal, listener: any) {
      onabort.set!.call(this, tie(this, listener));
    },
  });
}
