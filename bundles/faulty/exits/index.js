export default () => {
  console.error("about to exit");
  process.exit(3);
};
