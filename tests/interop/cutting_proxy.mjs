// A proxy that cuts streams: `aim(port)` says where the next requests go; `cuts` is a list of {after, how} for the next
// responses, one each (none: the response is passed whole). `after` is a number of chunks; `how` is "break" (the
// connection is lost), "torn" (in the middle of the next chunk), or "end" (as if that were all).
import http from "node:http";

const CHUNK = /^data: (?!\[DONE\])/;

export async function cuttingProxy(ports) {
  const state = { ports, next: 0, cuts: [], seen: [] };
  const server = http.createServer((request, response) => {
    const port = state.ports[state.next++ % state.ports.length];
    const seen = { method: request.method, path: request.url };
    const cut = state.cuts.shift();
    state.seen.push(seen);
    const options = { host: "127.0.0.1", port, path: request.url, method: request.method, headers: request.headers, agent: false };
    const onward = http.request(options, (answer) => {
      seen.status = answer.statusCode;
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      pass(answer, response, cut);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  state.url = `http://127.0.0.1:${server.address().port}`;
  return state;
}

function pass(answer, response, cut) {
  let rest = "";
  let chunks = 0;
  const stop = (half) => {
    answer.removeAllListeners().on("error", () => {}).destroy();
    if (cut.how === "end") return response.end();
    // What was written before must arrive: only then is it known how much the client has.
    response.write(cut.how === "torn" ? half : "", () => setTimeout(() => response.destroy(), 2));
  };
  if (cut?.after === 0) return stop(": nothing yet\n");
  answer.setEncoding("utf8");
  answer.on("data", (data) => {
    if (!cut) return response.write(data);
    rest += data;
    for (let end; !answer.destroyed && (end = rest.indexOf("\n\n")) >= 0; ) {
      const frame = rest.slice(0, end + 2);
      rest = rest.slice(end + 2);
      if (CHUNK.test(frame.replace(/^(:.*\n)+/, "")) && ++chunks > cut.after) return stop(frame.slice(0, frame.length / 2));
      response.write(frame);
      if (chunks === cut.after && cut.how !== "torn") return stop("");
    }
  });
  answer.on("end", () => response.end(rest));
  answer.on("error", () => response.destroy());
  answer.on("aborted", () => response.destroy());
}
