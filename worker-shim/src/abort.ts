// Makes listeners of an AbortSignal run in the context in which they were added. Bun calls those of `req.signal`
// outside any context when the connection is dropped, so their output would belong to no invocation.

import { currentInvocation } from "./context.ts";

type Listener = ((event: Event) => unknown) & { handleEvent?: (event: Event) => unknown };

/** Wrappers of listeners, per signal, so that a listener can be removed and is called only once when added twice. */
const standIns = new WeakMap<EventTarget, WeakMap<Listener, Listener>>();
const originals = new WeakMap<Listener, Listener>();

/** Ties a listener to the running invocation; returns it unchanged outside of all invocations. */
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

/** Replaces the methods that add and remove listeners of AbortSignals, and of no other event target. */
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
      // A listener that was added outside every invocation has no wrapper.
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
