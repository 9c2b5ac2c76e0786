/** `subscribe` and `getSnapshot` fit `useSyncExternalStore`. @template S */
export class Snapshots<S> {
    /** @param {() => S} make */
    constructor(make: () => S);
    /** @param {() => void} listener @returns {() => void} ends the subscription */
    subscribe(listener: () => void): () => void;
    /** The same object until the value changes; with listeners, until they are called. @returns {S} */
    getSnapshot(): S;
    changed(): void;
    #private;
}
