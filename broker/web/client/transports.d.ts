export function readByFetch(client: RuncastClient, opening: Opening, listener: Listener): Promise<Ending>;
export function readByEventSource(client: RuncastClient, opening: Opening, listener: Listener): Promise<Ending>;
export const CONTROLS: string[];
export type Opening = {
    path: string;
    query: Record<string, string | null>;
    cursor: string | null;
    token: string | null;
    /**
     * for the ticket, if one is needed
     */
    executionId?: string | undefined;
    /**
     * ends the connection; its reason is thrown
     */
    signal: AbortSignal;
};
export type Listener = {
    /**
     * the edge has answered
     */
    opened: () => void;
    /**
     * bytes arrived; a heartbeat counts
     */
    bytes: () => void;
    frame: (frame: Frame) => void;
    /**
     * the cursor moves without an event
     */
    position: (id: string) => void;
    retry: (milliseconds: number) => void;
};
/**
 * `finished`: 204, no event will ever follow the cursor
 */
export type Ending = "finished" | "closed";
export type Transport = (client: RuncastClient, opening: Opening, listener: Listener) => Promise<Ending>;
import type { RuncastClient } from "./api.js";
import type { Frame } from "./parser.js";
