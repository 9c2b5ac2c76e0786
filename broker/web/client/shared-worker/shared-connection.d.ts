/**
 * The user's identity: tabs of the same identity share a stream. With a token these are its claims, which a renewed
 * token repeats. A cookie cannot be read by scripts: with one it is the application's `identity`. Null: not known.
 * @param {string | null} token @param {string} [given]
 */
export function identityOf(token: string | null, given?: string): string | null;
/** Used like a `Connection`: one `start`, one `stop`. Calls `onUnavailable`, with the reason, if sharing is not
 * possible. */
export class SharedConnection {
    /** @param {RuncastClient} client @param {Target} target @param {Sequence} sequence @param {Sink} sink
     * @param {(reason: string) => void} onUnavailable */
    constructor(client: RuncastClient, target: Target, sequence: Sequence, sink: Sink, onUnavailable: (reason: string) => void);
    start(): void;
    stop(): void;
    #private;
}
import type { RuncastClient } from "../api.js";
import type { Target } from "../stream.js";
import type { Sequence } from "../cursor.js";
import type { Sink } from "../stream.js";
