/** `subscribe` and `getSnapshot` fit `useSyncExternalStore`. @template S */
export class Snapshots<S> {
    /** @param {() => S} make */
    constructor(make: () => S);
    /** @param {() => void} listener @returns {() => void} ends the subscription */
    subscribe(listener: () => void): () => void;
    /** The same object until something changed; while there are listeners, until they are told. @returns {S} */
    getSnapshot(): S;
    changed(): void;
    #private;
}
