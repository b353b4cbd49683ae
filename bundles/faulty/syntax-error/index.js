export default () => {
  const answer = ;
  return new Response(answer);
};
