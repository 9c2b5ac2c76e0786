/** The list and its stream. `start()`, `close()`; `subscribe` and `getSnapshot` fit `useSyncExternalStore`. */
export class ExecutionFeed {
    /** @param {RuncastClient} client @param {FeedOptions} [options] `limit`: how many executions, at most 200 */
    constructor(client: RuncastClient, { limit, onEvent, ...options }?: FeedOptions);
    start(): void;
    close(): void;
    /** @param {() => void} listener */
    subscribe(listener: () => void): () => void;
    getSnapshot(): FeedSnapshot;
    #private;
}
/**
 * The live list of a user's executions: the edge's list, kept current by the feed.
 */
export type FeedSnapshot = {
    /**
     * newest first
     */
    executions: readonly FeedItem[];
    /**
     * whether the edge's list has been read
     */
    isLoaded: boolean;
    /**
     * of the feed's stream
     */
    status: Status;
    /**
     * why the list or the feed could not be read
     */
    error: Error | null;
};
/**
 * The live list of a user's executions: the edge's list, kept current by the feed.
 */
export type FeedOptions = Pick<StreamOptions, "mode" | "identity" | "workerUrl" | "onEvent"> & {
    limit?: number;
};
import type { RuncastClient } from "./api.js";
import type { FeedItem } from "./execution-list.js";
import type { Status } from "./stream.js";
import type { StreamOptions } from "./stream.js";
