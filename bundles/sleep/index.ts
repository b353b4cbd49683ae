// Waits without using the processor, and stops waiting when the caller goes away.

interface Context {
  signal: AbortSignal;
}

export default async (req: Request, ctx: Context): Promise<Response> => {
  const ms = Number(new URL(req.url).searchParams.get("ms") ?? "100");
  const start = performance.now();
  const woken = await new Promise<"timer" | "abort">((resolve) => {
    const timer = setTimeout(() => resolve("timer"), ms);
    ctx.signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve("abort");
    });
  });
  return Response.json({ asked: ms, slept: Math.round(performance.now() - start), woken });
};
