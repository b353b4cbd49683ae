export default () => {
  const line = "x".repeat(1_000) + "\n";
  for (let i = 0; i < 2_000; i++) process.stdout.write(line);
  for (let i = 0; i < 2_000; i++) console.log("flood", i, line);
  return new Response("ok");
};
