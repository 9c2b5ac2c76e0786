// Print an execution's events, over as many connections as it takes. Node 18 or newer, Deno or Bun, no packages:
//
//   node reader.mjs 'http://localhost:8080/api/agent/executions/ID/stream?heartbeat=3' TOKEN
//
// A page needs none of this: an EventSource does it by itself.
const LAST = /^execution:(complete|error|cancelled)$/;

/** Yield the id and the JSON of each event. Throws for what another try does not mend. */
export async function* events(url, token) {
  let cursor = "";
  for (let retry = 2000; ; await new Promise((wake) => setTimeout(wake, retry))) {
    const silence = new AbortController();
    const timer = setTimeout(() => silence.abort(), 10_000);
    try {
      const headers = { Authorization: `Bearer ${token}`, Accept: "text/event-stream", "Last-Event-ID": cursor };
      const { status, body } = await fetch(url, { headers, signal: silence.signal });
      if (status === 204) return;
      if (status >= 400 && status < 500 && status !== 429) throw new Error(status);
      let rest = "";
      for await (const text of body.pipeThrough(new TextDecoderStream())) {
        timer.refresh(); // in Deno: clear it and set it again
        const blocks = (rest + text).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const field = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/)));
          const { event = "", data = "" } = field;
          ({ id: cursor = cursor, retry = retry } = field);
          if (data && !event.startsWith("stream:")) yield [cursor, data];
          if (LAST.test(event) || (event === "stream:end" && data.includes('"reason":"finished"'))) return;
        }
      }
    } catch (error) {
      if (!(error instanceof TypeError || error.name === "AbortError")) throw error; // those two: lost, or silent
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }
}

for await (const event of events(...process.argv.slice(2))) console.log(...event);
