/** Numbers, times and names as text. Pure. */

const NUMBER = new Intl.NumberFormat("en");
const MONEY = new Intl.NumberFormat("en", { style: "currency", currency: "USD" });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const EXACT = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
});
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const whole = (value) => NUMBER.format(value);
export const compact = (value) => (value < 10_000 ? NUMBER.format(Math.round(value)) : COMPACT.format(value));
export const clock = (ms) => CLOCK.format(ms);
export const exactClock = (ms) => EXACT.format(ms);
export const moment = (ms) => MOMENT.format(ms);

/** `0.4 ms`, `38 ms`, `1.2 s`, `47 s`, `3 min 20 s`, `2 h 5 min`: two significant parts at most. */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 0.001) return "< 1 ms";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  return longDuration(Math.round(seconds));
}

function longDuration(seconds) {
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  const shown = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return shown.map(([count, unit]) => `${count} ${unit}`).join(" ");
}

/** Whole seconds, for running times: `4 s`, `1 min 5 s`. */
export function running(ms) {
  return duration(Math.max(1, Math.floor(ms / 1000)) * 1.0).replace(/\.0 s$/, " s");
}

/** How long ago: `now`, `4 min`, `3 h`, `2 d`. */
export function age(ms) {
  const seconds = ms / 1000;
  if (seconds < 45) return "now";
  if (seconds < 3570) return `${Math.max(1, Math.round(seconds / 60))} min`;
  if (seconds < 84_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** The time since the beginning, for a column of times: `0.4 s`, `12.0 s`, `1:40`, `1:02:03`. */
export function offset(ms) {
  if (ms < 59_950) return `${Math.max(0, ms / 1000).toFixed(1)} s`;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const tail = `${String(seconds % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, count)) / 10));
  const value = count / 1024 ** step;
  return `${value < 10 && step > 0 ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 10_000 ? `${Math.round(ms)} ms` : duration(ms / 1000);
}

export function money(usd) {
  return usd < 0.01 && usd > 0 ? `$${usd.toFixed(4)}` : MONEY.format(usd);
}

export const BUDGET_LABELS = { totalTokens: "Tokens", costUsd: "Cost", toolCalls: "Tool calls", seconds: "Time" };

/** What is spent of a limit, or the limit itself. */
export function amount(limit, value) {
  if (limit === "costUsd") return money(value);
  return limit === "seconds" ? duration(value) || "0 s" : compact(value);
}

export function plural(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** `worthALook` → `Worth a look`, `list_files` → `List files`: a key as a label. */
export function label(key) {
  const words = key
    .replace(/([a-z0-9])(?=[A-Z])|([A-Z])(?=[A-Z][a-z])/g, "$& ")
    .replace(/[_-]+/g, " ")
    .trim();
  if (!words || words.length > 60) return key;
  // Two or more capitals are an abbreviation, which stays as it is.
  const lower = words.replace(/\b[A-Z](?:[a-z]+|\b)/g, (word) => word.toLowerCase());
  return lower[0].toUpperCase() + lower.slice(1);
}

export const STATES = {
  queued: "Queued",
  running: "Running",
  waiting_input: "Needs an answer",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

export const isOver = (state) => state === "completed" || state === "failed" || state === "cancelled";
