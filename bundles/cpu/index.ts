// Burns a given amount of CPU time, for measurements: `?ms=1`, at most 10 seconds.

export default (req: Request): Response => {
  const asked = Number(new URL(req.url).searchParams.get("ms") ?? "1");
  const ms = Math.min(Math.max(Number.isFinite(asked) ? asked : 1, 0), 10_000);
  // CPU time and not the clock: a worker that has to share its processor still burns the full amount.
  const start = process.cpuUsage();
  let rounds = 0;
  let value = 0x9e3779b9;
  for (;;) {
    for (let i = 0; i < 2_000; i++) value = Math.imul(value ^ (value >>> 15), 0x85ebca6b) + i;
    rounds++;
    const used = process.cpuUsage(start);
    if (used.user + used.system >= ms * 1_000) break;
  }
  return Response.json({ ms, rounds, value: value >>> 0 });
};
