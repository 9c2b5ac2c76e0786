/** One `start`, one `stop`. Never raises: events, controls and changes of the status go to the sink. */
export class Connection {
    /** @param {RuncastClient} client @param {Target} target @param {Sequence} sequence @param {Sink} sink */
    constructor(client: RuncastClient, target: Target, sequence: Sequence, sink: Sink);
    start(): void;
    stop(): void;
    #private;
}
/**
 * what to do after a connection
 */
export type Verdict = {
    kind: "over";
} | {
    kind: "failed";
    error: Error;
} | {
    kind: "reconnect";
    delayMs: number;
    error: Error | null;
};
import type { RuncastClient } from "./api.js";
import type { Target } from "./stream.js";
import type { Sequence } from "./cursor.js";
import type { Sink } from "./stream.js";
