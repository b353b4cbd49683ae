// Returns its request. GET and HEAD describe the request as JSON; every other method streams the body back unchanged.

export default (req: Request): Response => {
  if (req.method === "GET" || req.method === "HEAD") {
    const url = new URL(req.url);
    return Response.json({
      method: req.method,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      headers: Object.fromEntries(req.headers),
    });
  }
  const type = req.headers.get("content-type");
  return new Response(req.body, { headers: type === null ? {} : { "content-type": type } });
};
