/** Makes the questions of one attempt. The id comes from the question, and from how often this attempt has asked it: a
 * later attempt that asks the same finds the answer to it, and never that to another question. */
export class Inputs {
    /** @param {string} prompt @param {InputKind} kind @param {AskOptions} options @returns {Promise<InputRequest>} */
    make(prompt: string, kind: InputKind, { options, schema, expiresIn, inputId }: AskOptions): Promise<InputRequest>;
    #private;
}
export type InputKind = "approval" | "choice" | "text" | "form";
export type AskOptions = {
    /**
     * of a choice
     */
    options?: readonly string[] | undefined;
    /**
     * a JSON Schema, of a form; `{}` for a text: any JSON is an answer
     */
    schema?: Record<string, unknown> | undefined;
    /**
     * seconds; absent: the wait ends with the execution
     */
    expiresIn?: number | undefined;
    /**
     * your own id stands for one question only
     */
    inputId?: string | undefined;
    /**
     * ends the wait; the question stays open
     */
    signal?: AbortSignal | undefined;
};
export type InputRequest = {
    inputId: string;
    prompt: string;
    kind: InputKind;
    options?: string[];
    schema?: object;
    expiresAt?: number;
};
