/**
 * Follows a stream with the client and writes what it sees, a JSON object on each line; commands come in the same way.
 *
 * Argument, as JSON: {urls, token, fresh?, options, faults?}. Each connect goes to the next of `urls`. `fresh` is the
 * token given when a newer one is asked for. `faults` are what a network in between does to the first connect:
 * {refuse: {status, headers}}, {drop: ordinal}, {repeat: true}; the command `cut` breaks the connection there is.
 */
import process from "node:process";
import readline from "node:readline";
import { RuncastClient } from "../../../broker/web/client/index.js";

const { urls, token, fresh, options, faults = {} } = JSON.parse(process.argv[2]);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
let connects = 0;
let cut = () => {};

/** Where the connects of streams go in turn, and what the first one meets. */
async function fetchInTurn(url, init) {
  const asked = new URL(url);
  if (!asked.pathname.endsWith("/stream")) return fetch(url, init);
  const target = new URL(urls[connects % urls.length]);
  asked.host = target.host;
  connects += 1;
  say({ connect: connects, cursor: init.headers.get("Last-Event-ID"), at: Date.now() });
  if (connects > 1) return fetch(asked, init);
  if (faults.refuse) return new Response("{}", faults.refuse);
  const response = await fetch(asked, init);
  return new Response(response.body.pipeThrough(tampered()), response);
}

/** Frames with one left out, or each of them twice, until the connection is cut. */
function tampered() {
  const [decoder, encoder] = [new TextDecoder(), new TextEncoder()];
  let rest = "";
  return new TransformStream({
    start(controller) {
      cut = () => controller.error(new Error("cut"));
    },
    transform(bytes, controller) {
      const frames = (rest + decoder.decode(bytes, { stream: true })).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        if (new RegExp(`^id: \\d+-${faults.drop}$`, "m").test(frame)) continue;
        controller.enqueue(encoder.encode((frame + "\n\n").repeat(faults.repeat ? 2 : 1)));
      }
    },
  });
}

const given = ({ refresh }) => (refresh ? (say({ refreshed: true }), fresh) : token);
const client = new RuncastClient({ baseUrl: urls[0], token: fresh === undefined ? token : given, fetch: fetchInTurn });
const stream = client.stream({
  ...options,
  onEvent: (event) => say({ event: event.id ?? null, type: event.type }),
  onControl: (control) => say({ control: control.type, data: control.data }),
  onStatus: ({ error, ...status }) => say({ status: { ...status, error: error && { ...error, message: error.message } } }),
});

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "start") stream.start();
  if (line === "close") stream.close();
  if (line === "cut") cut();
});
stream.start();
