/**
 * The messages between a tab and the shared worker.
 *
 * A tab sends `open` (once), `ack` for each `items`, `token` for each `ask`, `pong` for each `ping`, and `close`.
 * The worker sends `items`, `ask` and `ping`.
 *
 * @import { ClientOptions } from "../api.js"
 * @import { StreamControl } from "../events.js"
 * @import { Status, Target } from "../stream.js"
 */

/**
 * @typedef {{kind: "open", key: string, baseUrl: string, as: ClientOptions["as"], target: Target,
 *   cursor: string | null, isFromNow: boolean, token: string | null, lock: string | null}} Open
 *   `lock`: held by the tab as long as it lives
 *
 * @typedef {Open
 *   | {kind: "ack", count: number, size: number}
 *   | {kind: "token", ask: number, token?: string | null, failed?: boolean}
 *   | {kind: "pong"} | {kind: "close"}} FromTab
 *
 * @typedef {{event: any, size: number} | {position: string} | {control: StreamControl}
 *   | {change: Partial<Status>} | {refused: true}} Item `position`: the cursor moved without an event
 *
 * @typedef {{kind: "items", items: Item[], size: number} | {kind: "ask", ask: number, than: string | null}
 *   | {kind: "ping"}} FromWorker `ask`: a newer token than `than` is needed
 */

/** How often the worker pings each tab. */
export const PING_MS = 10_000;
