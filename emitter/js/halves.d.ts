export class Halves {
    /** The chunk with the half before it, without the half at its end. @param {string} type @param {string} messageId
     * @param {string} delta @param {any} speaker kept with a half */
    join(type: string, messageId: string, delta: string, speaker: any): string;
    /** What waits of one message, or of all, as U+FFFD. @param {string} [messageId] */
    release(messageId?: string): {
        type: string;
        data: {
            messageId: string;
            delta: string;
        };
        speaker: any;
    }[];
    #private;
}
