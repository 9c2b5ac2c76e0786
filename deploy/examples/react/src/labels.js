export const STATES = {
  queued: "queued",
  running: "running",
  waiting_input: "needs an answer",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
};

export const PHASES = {
  idle: "not connected",
  connecting: "connecting",
  replaying: "catching up",
  live: "live",
  waiting: "reconnecting",
  offline: "offline",
  ended: "ended",
  failed: "no connection",
  closed: "closed",
};

export function seconds(duration) {
  return `${duration < 10 ? duration.toFixed(1) : Math.round(duration)} s`;
}

/** A value on one line. */
export function brief(value, most = 90) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text === undefined ? "" : text.length > most ? text.slice(0, most - 1) + "…" : text;
}
