/** The snapshot without a stream. @param {Status} status @returns {TreeSnapshot} */
export function noTree(status: Status): TreeSnapshot;
/** `start()`, `close()`; `subscribe` and `getSnapshot` fit `useSyncExternalStore`. */
export class ExecutionTree {
    /** @param {RuncastClient} client @param {string} rootId @param {TreeOptions} [options] `onEvent`: called for the
     * events of the feed that belong to the tree */
    constructor(client: RuncastClient, rootId: string, { onEvent, ...options }?: TreeOptions);
    start(): void;
    close(): void;
    /** @param {() => void} listener */
    subscribe(listener: () => void): () => void;
    getSnapshot(): TreeSnapshot;
    #private;
}
/**
 * The live tree of an execution and of all that it started: the edge's tree, kept current by the feed.
 */
export type TreeSnapshot = {
    /**
     * null until it has been read
     */
    tree: ExecutionNode | null;
    /**
     * of the feed's stream
     */
    status: Status;
    /**
     * why the tree or the feed could not be read
     */
    error: Error | null;
};
/**
 * The live tree of an execution and of all that it started: the edge's tree, kept current by the feed.
 */
export type TreeOptions = Pick<StreamOptions, "mode" | "identity" | "workerUrl" | "onEvent">;
import type { Status } from "./stream.js";
import type { RuncastClient } from "./api.js";
import type { ExecutionNode } from "./events.js";
import type { StreamOptions } from "./stream.js";
