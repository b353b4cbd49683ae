export const helper = () => "nobody calls this";
