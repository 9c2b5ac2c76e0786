/** @type {Status} */
export const IDLE: Status;
export class AgentStream {
    /** @param {StreamOptions} options */
    constructor(options: StreamOptions);
    /** A new object at each change. */
    get status(): Status;
    /** Begin, or go on after `close`, or try again after the stream failed. */
    start(): this;
    /** Leave. The execution goes on; `start` resumes after the last event. */
    close(): void;
    /** The events, from now on; starts the stream, and closes it when the loop is left. Raises when the stream fails.
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
     * events that had happened before they were asked for
     */
    replayed: number;
    /**
     * the last few
     */
    resets: readonly StreamReset[];
    /**
     * of the last live event: when it came less its `ts`, by two clocks
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
     * how the stream is read; `shared` falls back to `fetch`
     */
    mode: Mode;
    /**
     * why it is not `shared`, where that was asked for
     */
    fallback: string | null;
};
export type StreamOptions = {
    client: RuncastClient;
    /**
     * absent: the feed of everything of the user
     */
    executionId?: string | undefined;
    /**
     * of another stream of the edge, instead
     */
    path?: string | undefined;
    /**
     * the id after which to go on
     */
    cursor?: string | null | undefined;
    /**
     * where to begin without a cursor; the feed at `now`, an execution at its `start`
     */
    from?: "start" | "now" | undefined;
    /**
     * only these: `tool:*`
     */
    types?: readonly string[] | undefined;
    mode?: Mode | undefined;
    /**
     * whose cookie it is: tabs of one identity share a connection (`shared` with a cookie)
     */
    identity?: string | undefined;
    /**
     * of `shared-worker.js`, where a bundler moved it
     */
    workerUrl?: string | URL | undefined;
    /**
     * of another stream (`path`): {type, data}
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
 * what a connection tells
 */
export type Sink = {
    /**
     * the next one, and the characters of its JSON
     */
    event: (event: any, size: number) => void;
    control: (control: StreamControl) => void;
    change: (change: Partial<Status>) => void;
    opened: (again: boolean) => void;
    /**
     * all that came at once was told
     */
    batch: () => void;
};
import type { StreamEvent } from "./events.js";
import type { StreamReset } from "./events.js";
import type { RuncastClient } from "./api.js";
import type { StreamControl } from "./events.js";
