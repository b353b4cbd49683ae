// Sends an answer in pieces: `?chunks=5&ms=20` sends five lines, 20 ms apart. A slow reader slows it down.

export default (req: Request): Response => {
  const query = new URL(req.url).searchParams;
  const chunks = Math.min(Number(query.get("chunks") ?? "5"), 1_000_000);
  const ms = Number(query.get("ms") ?? "20");
  let sent = 0;
  const body = new ReadableStream({
    async pull(controller) {
      if (sent > 0 && ms > 0) await Bun.sleep(ms);
      controller.enqueue(`chunk ${++sent} of ${chunks}\n`);
      if (sent >= chunks) controller.close();
    },
  });
  return new Response(body, { headers: { "content-type": "text/plain; charset=utf-8" } });
};
