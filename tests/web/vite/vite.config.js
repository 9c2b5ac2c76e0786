// One origin for the page and the edge, as behind a load balancer.
const proxy = { "/api": process.env.RUNCAST_URL };

export default { server: { proxy }, preview: { proxy } };
