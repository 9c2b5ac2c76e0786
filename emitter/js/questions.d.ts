/** @typedef {{over: Promise<void>, end: () => void}} Wait `over` resolves with the answer, and rejects when none can come */
export class Questions {
    /** Whether the log has the answer to a question. @param {string} id */
    has(id: string): boolean;
    /** The value of the answer. Raises `InputExpired` if that was that nobody answered, and `Declined`; an approval that
     * was declined is false. @param {string} id @param {string} kind */
    value(id: string, kind: string): any;
    /** The log has an answer. @param {any} answer */
    heard(answer: any): void;
    /** No answers can come any more. @param {Error} error */
    fail(error: Error): void;
    /** @param {string} id @param {number | undefined} expiresAt ms since the epoch
     * @param {AbortSignal | undefined} signal @returns {Wait} */
    wait(id: string, expiresAt: number | undefined, signal: AbortSignal | undefined): Wait;
    #private;
}
/**
 * `over` resolves with the answer, and rejects when none can come
 */
export type Wait = {
    over: Promise<void>;
    end: () => void;
};
