// @bun
// src/rehearsal.ts
var rehearsal_default = () => Response.json({});
export {
  rehearsal_default as default
};
