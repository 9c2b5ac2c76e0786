/** `@runcast/emitter/worker` under a name of its own. */
export * from "@runcast/emitter/worker";
