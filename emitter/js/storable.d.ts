/** A text as UTF-8 can hold it: half of a surrogate pair is U+FFFD. @param {string} value */
export function wellFormed(value: string): string;
/** The nearest thing that JSON can hold. @param {unknown} value @returns {any} */
export function storable(value: unknown): any;
/** The size of a storable value as JSON of ASCII characters, as logs have it. @param {unknown} value */
export function asciiBytes(value: unknown): number;
/** The size of a text of JSON with escapes in place of all other than ASCII. @param {string} json */
export function textBytes(json: string): number;
/** @typedef {{value: any, size: number, key: number, parts: Sized[]}} Sized */
/** A storable value that fits: the same, or one in which long texts, lists and objects end with a mark that says how
 * much there was. What is small is kept, what is large gives up the rest. A text stays a text.
 * @param {any} value @param {number} maxBytes */
export function clip(value: any, maxBytes: number): any;
export type Sized = {
    value: any;
    size: number;
    key: number;
    parts: Sized[];
};
