/** @type {Status} */
export const IDLE: Status;
export class AgentStream {
    /** @param {StreamOptions} options */
    constructor(options: StreamOptions);
    /** A new object at each change. */
    get status(): Status;
    /** Start, resume after `close`, or try again after a failure. */
    start(): this;
    /** Close the stream. The execution continues; `start` resumes after the last event. */
    close(): void;
    /** Iterates over the events: starts the stream, and closes it when the loop ends. Raises if the stream fails.
     * @returns {AsyncGenerator<StreamEvent, void>} */
    [Symbol.asyncIterator](): AsyncGenerator<StreamEvent, void>;
    #private;
}
export type Mode = "fetch" | "eventsource" | "shared";
export type Phase = "idle" | "connecting" | "replaying" | "live" | "waiting" | "offline" | "ended" | "failed" | "closed";
export type Status = {
    phase: Phase;
    lastEventId: string | null;
    reconnects: number;
    /**
     * events received before the stream was live
     */
    replayed: number;
    /**
     * the last few
     */
    resets: readonly StreamReset[];
    /**
     * of the last live event: time of arrival minus its `ts`, which is by another clock
     */
    latencyMs: number | null;
    /**
     * ms since the epoch, while waiting
     */
    retryAt: number | null;
    /**
     * the last one, until the stream is live again
     */
    error: Error | null;
    /**
     * ms since the epoch
     */
    connectedAt: number | null;
    /**
     * the transport in use; `shared` may fall back to `fetch`
     */
    mode: Mode;
    /**
     * why the mode is not `shared`, although that was requested
     */
    fallback: string | null;
};
export type StreamOptions = {
    client: RuncastClient;
    /**
     * absent: the feed of all executions of the user
     */
    executionId?: string | undefined;
    /**
     * of another stream of the edge instead
     */
    path?: string | undefined;
    /**
     * the id after which to resume
     */
    cursor?: string | null | undefined;
    /**
     * where to start without a cursor; default for the feed: `now`, for an execution:
     * `start`
     */
    from?: "start" | "now" | undefined;
    /**
     * only events of these types, `tool:*` for example
     */
    types?: readonly string[] | undefined;
    /**
     * whether neighbouring deltas of one text arrive as one event while the log is replayed:
     * a long log opens faster, and its fold is the same; default: no
     */
    compact?: boolean | undefined;
    mode?: Mode | undefined;
    /**
     * the user, for `shared` with a cookie: only tabs of one identity share a connection
     */
    identity?: string | undefined;
    /**
     * of `shared-worker.js`, if a bundler moved it
     */
    workerUrl?: string | URL | undefined;
    /**
     * `size`: characters of its JSON; with `path` an
     * event is {type, data}
     */
    onEvent?: ((event: StreamEvent, size: number) => void) | undefined;
    onControl?: ((control: StreamControl) => void) | undefined;
    onStatus?: ((status: Status) => void) | undefined;
};
export type Target = {
    path: string;
    executionId?: string;
    query: Record<string, string | null>;
    mode: Mode;
    identity?: string;
    workerUrl?: string | URL;
};
/**
 * the callbacks of a connection
 */
export type Sink = {
    /**
     * the next event, and the characters of its JSON
     */
    event: (event: any, size: number) => void;
    control: (control: StreamControl) => void;
    change: (change: Partial<Status>) => void;
    opened: (again: boolean) => void;
    /**
     * all events of one read were delivered
     */
    batch: () => void;
};
import type { StreamEvent } from "./events.js";
import type { StreamReset } from "./events.js";
import type { RuncastClient } from "./api.js";
import type { StreamControl } from "./events.js";
