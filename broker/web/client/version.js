/** The same as the edge's, which serves this client. */
export const VERSION = "0.3.0";
