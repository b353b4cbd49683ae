// Sends answers with unusual heads: statuses, redirects and repeated headers.

export default (req: Request): Response => {
  const url = new URL(req.url);
  if (url.pathname.endsWith("/redirect")) return Response.redirect("/elsewhere", 302);
  const asked = Number(url.searchParams.get("status") ?? "200");
  const status = Number.isInteger(asked) && asked >= 200 && asked <= 599 ? asked : 400;
  const headers = new Headers({ "x-sample": "levain", "cache-control": "no-store" });
  headers.append("set-cookie", "first=1; Path=/");
  headers.append("set-cookie", "second=2; Path=/; HttpOnly");
  // These statuses have no body by definition.
  const empty = status === 204 || status === 205 || status === 304;
  return new Response(empty ? null : `status ${status}`, { status, headers });
};
