export default () => {
  setTimeout(() => Promise.reject(new Error("rejected after the answer")), 1);
  return new Response("ok");
};
