export default () => ({ message: "a plain object is not a Response" });
