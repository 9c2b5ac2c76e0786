/** The same as the edge's and the Python packages'. */
export const VERSION: "0.3.0";
