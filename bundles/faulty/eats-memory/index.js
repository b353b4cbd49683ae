export default async () => {
  const kept = [];
  for (;;) {
    // The array is filled, so that its pages are really used.
    kept.push(new Uint8Array(8 * 1024 * 1024).fill(kept.length + 1));
    await Bun.sleep(1);
  }
};
