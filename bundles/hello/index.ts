// The smallest useful function: a greeting as JSON.

interface Context {
  invocationId: string;
  version: string;
}

export default (req: Request, ctx: Context): Response => {
  const name = new URL(req.url).searchParams.get("name") ?? "world";
  return Response.json({ message: `Hello, ${name}!`, invocation: ctx.invocationId, version: ctx.version });
};
