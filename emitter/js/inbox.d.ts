/** The messages that wait, or the first that comes; null if none can come any more. An answer that is lost is asked for
 * again by the same id, and has the same messages.
 * @param {Edge} edge @param {string} executionId @param {Record<string, string>} attempt headers of a worker's attempt
 * @param {AbortSignal} signal @returns {Promise<UserMessage[] | null>} */
export function takeMessages(edge: Edge, executionId: string, attempt: Record<string, string>, signal: AbortSignal): Promise<UserMessage[] | null>;
/**
 * what a person said
 */
export type UserMessage = {
    messageId: string;
    by: string;
    mode: "queue" | "interrupt";
    /**
     * milliseconds since the epoch
     */
    sentAt: number;
    text?: string | undefined;
    data?: any;
};
import type { Edge } from "./edge.js";
