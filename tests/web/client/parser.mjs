/**
 * Reads streams with our parser and with eventsource-parser. In: for each stream a JSON line, its bytes in pieces
 * (base64). Out: for each a JSON line {ours, theirs, retries, comments, lastEventId}.
 */
import process from "node:process";
import readline from "node:readline";
import { createParser } from "eventsource-parser";
import { EventStreamParser } from "../../../broker/web/client/parser.js";

for await (const line of readline.createInterface({ input: process.stdin })) {
  const pieces = JSON.parse(line).map((piece) => Buffer.from(piece, "base64"));
  process.stdout.write(JSON.stringify({ ...ours(pieces), theirs: theirs(pieces) }) + "\n");
}

function ours(pieces) {
  const seen = { ours: [], ids: [], retries: [], comments: [] };
  const parser = new EventStreamParser({
    onEvent: (frame) => seen.ours.push([frame.id ?? null, frame.event, frame.data]),
    onId: (id) => seen.ids.push(id),
    onRetry: (milliseconds) => seen.retries.push(milliseconds),
    onComment: (comment) => seen.comments.push(comment),
  });
  for (const piece of pieces) parser.feed(piece);
  return { ...seen, lastEventId: parser.lastEventId };
}

function theirs(pieces) {
  const seen = [];
  const parser = createParser({ onEvent: ({ id, event, data }) => seen.push([id ?? null, event ?? "message", data]) });
  const decoder = new TextDecoder();
  for (const piece of pieces) parser.feed(decoder.decode(piece, { stream: true }));
  return seen;
}
