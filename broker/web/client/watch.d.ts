export class ExecutionWatch {
    /** @param {RuncastClient} client @param {string} executionId @param {WatchOptions} [options] */
    constructor(client: RuncastClient, executionId: string, { keepEvents, ...options }?: WatchOptions);
    executionId: string;
    keepEvents: number;
    stream: AgentStream;
    start(): this;
    close(): void;
    /** Call the listener when the snapshot has changed, until the returned function is called.
     * @param {() => void} listener */
    subscribe(listener: () => void): () => void;
    /** The same object until it changes; with listeners, until they are called. @returns {Snapshot} */
    getSnapshot(): Snapshot;
    #private;
}
/**
 * `keepEvents`: how many of the last events a snapshot has
 */
export type WatchOptions = Partial<Omit<StreamOptions, "client" | "executionId" | "path" | "types">> & {
    keepEvents?: number;
};
export type Snapshot = {
    /**
     * null until the first event
     */
    state: wire.ExecutionState | null;
    status: Status;
    /**
     * the last `keepEvents`, if the option is given
     */
    events?: readonly any[] | undefined;
};
import { AgentStream } from "./stream.js";
import type { RuncastClient } from "./api.js";
import type { StreamOptions } from "./stream.js";
import type * as wire from "./events.js";
import type { Status } from "./stream.js";
