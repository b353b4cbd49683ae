// Writes one line at each level, and raw lines on both pipes.

export default (): Response => {
  console.debug("a debug line");
  console.log("an info line with an object", { answer: 42, list: [1, 2, 3] });
  console.warn("a warning\nof two lines");
  console.error(new Error("an error that is only logged"));
  process.stdout.write("raw stdout\n");
  process.stderr.write("raw stderr\n");
  return new Response("ok");
};
