export function readByFetch(client: RuncastClient, opening: Opening, listener: Listener): Promise<Ending>;
export function readByEventSource(client: RuncastClient, opening: Opening, listener: Listener): Promise<Ending>;
export const CONTROLS: string[];
export type Opening = {
    path: string;
    query: Record<string, string | null>;
    cursor: string | null;
    token: string | null;
    /**
     * the ticket's, where one is needed
     */
    executionId?: string | undefined;
    /**
     * its reason is thrown
     */
    signal: AbortSignal;
};
export type Listener = {
    /**
     * the edge has answered
     */
    opened: () => void;
    /**
     * something came, be it a heartbeat
     */
    bytes: () => void;
    frame: (frame: Frame) => void;
    /**
     * the cursor moves without an event
     */
    place: (id: string) => void;
    retry: (milliseconds: number) => void;
};
/**
 * `nothing`: 204, nothing will ever follow the cursor
 */
export type Ending = "nothing" | "closed";
export type Transport = (client: RuncastClient, opening: Opening, listener: Listener) => Promise<Ending>;
import type { RuncastClient } from "./api.js";
import type { Frame } from "./parser.js";
