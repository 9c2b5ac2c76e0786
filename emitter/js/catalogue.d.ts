/** Any value as text: null is "", and a value that is no text is written as JSON. @param {unknown} value */
export function words(value: unknown): string;
/** Whether a type is known, or an event of one's own. @param {string} type */
export function isKnown(type: string): boolean;
/** Why the catalogue does not allow this data as it is; null if it does. @param {string} type @param {any} data
 * @returns {string | null} */
export function misfit(type: string, data: any): string | null;
/** The data of an event with every field in a form that the catalogue allows, at any length; fields that it does not
 * know are left out. @param {string} type @param {any} data @returns {{type: string, data: Record<string, any>}} */
export function mended(type: string, data: any): {
    type: string;
    data: Record<string, any>;
};
/** Mended data, cut to `room` bytes. @param {string} type @param {Record<string, any>} data @param {number} room
 * @returns {Record<string, any>} */
export function shorter(type: string, data: Record<string, any>, room: number): Record<string, any>;
/** The fields of each type that may be published. @type {Record<string, Record<string, Field>>} */
export const CATALOGUE: Record<string, Record<string, Field>>;
/** Types that are refused rather than mended: they change what an execution means. */
export const MEANT: Set<string>;
/** Terminal type → the state that it leaves. @type {Record<string, string>} */
export const TERMINAL_STATE_OF: Record<string, string>;
/**
 * A kind of field: `mend` makes an allowed value of any other, `allows` says whether that is needed.
 */
export type Kind = {
    name: string;
    allows: (value: any) => boolean;
    mend: (value: any) => any;
};
/**
 * A kind of field: `mend` makes an allowed value of any other, `allows` says whether that is needed.
 */
export type Field = {
    kind: Kind;
    required: boolean;
};
