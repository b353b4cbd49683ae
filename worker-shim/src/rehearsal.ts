// The stand-in function of a rehearsal.

export default (): Response => Response.json({});
