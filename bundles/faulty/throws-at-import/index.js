const url = process.env.DATABASE_URL_THAT_NOBODY_SETS;
if (!url) throw new Error("DATABASE_URL_THAT_NOBODY_SETS is not set");

export default () => new Response(url);
