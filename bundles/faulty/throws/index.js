export default () => {
  throw new TypeError("this function always throws");
};
