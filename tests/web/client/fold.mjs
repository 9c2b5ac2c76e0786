/**
 * Folds logs. In: for each a JSON line {entries: [{id, event}], at: [number]}. Out: for each a JSON line with the states
 * after that many entries; `at` goes up.
 */
import process from "node:process";
import readline from "node:readline";
import { Fold } from "../../../broker/web/client/fold.js";

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { entries, at } = JSON.parse(line);
  const fold = new Fold();
  const states = [];
  let taken = 0;
  for (const count of at) {
    for (; taken < count; taken += 1) fold.apply({ id: entries[taken].id, ...entries[taken].event });
    states.push(JSON.parse(JSON.stringify(fold.state())));
  }
  process.stdout.write(JSON.stringify(states) + "\n");
}
