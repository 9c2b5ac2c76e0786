/** The operations page: edges, workers, queues and Redis, from a snapshot every two seconds. */

import { Banner, ConnectionPill } from "./connection-status.js";
import { Keyed, h, setAttribute, setShare, setText } from "./dom.js";
import { age, bytes, compact, milliseconds, plural, whole } from "./format.js";
import { icon } from "./icons.js";
import { Sparkline } from "./sparkline.js";
import { isolated, line, visible } from "./text.js";

const TILES = [
  { id: "viewers", label: "Viewers", value: ({ totals }) => totals.viewers, show: compact },
  { id: "events", label: "Events", unit: "/s", value: ({ totals }) => totals.eventsPerSecond, show: rate },
  { id: "deliveries", label: "Deliveries", unit: "/s", value: ({ totals }) => totals.deliveriesPerSecond, show: rate },
  { id: "latency", label: "Delivery, p99", value: ({ edges }) => slowest(edges), show: milliseconds },
  { id: "running", label: "Running", value: ({ totals }) => totals.running, show: compact },
  { id: "queued", label: "Queued", value: ({ totals }) => totals.queued, show: compact },
];

function rate(value) {
  return value < 10 ? value.toFixed(1) : compact(value);
}

function slowest(edges) {
  const known = edges.map((edge) => edge.latencyMs?.p99).filter((value) => value !== null && value !== undefined);
  return known.length ? Math.max(...known) : null;
}

export class OpsPage {
  /** `page`: `{client, ticker, announce(text), back()}`. */
  constructor(page) {
    this._snapshot = null;
    this._pill = new ConnectionPill();
    this._banner = new Banner(page.announce);
    this._tiles = TILES.map((tile) => new Tile(tile));
    this._edges = new Table("Edges", EDGE_COLUMNS, (edge) => edge.id);
    this._workers = new Table("Workers", WORKER_COLUMNS, (worker) => worker.id);
    this._agents = new Table("Queues", AGENT_COLUMNS, (agent) => agent.name);
    this._redis = new RedisCard();
    this._waiting = h("p", { class: "muted ops-waiting" }, "Waiting for the first snapshot…");
    this._body = h(
      "div",
      { class: "ops-body", hidden: true },
      h(
        "ul",
        { class: "tiles" },
        this._tiles.map((tile) => tile.node),
      ),
      h(
        "div",
        { class: "ops-columns" },
        h("div", {}, this._edges.node, this._workers.node),
        h("div", {}, this._redis.node, this._agents.node),
      ),
    );
    const back = h(
      "button",
      {
        type: "button",
        class: "button quiet square back",
        "aria-label": "Back to the list",
        onclick: () => page.back(),
      },
      icon("back"),
    );
    this._title = h("h1", { tabindex: "-1" }, "Operations");
    this.node = h(
      "section",
      { class: "page ops" },
      h("header", { class: "page-head" }, back, this._title, this._pill.node),
      this._banner.node,
      this._waiting,
      this._body,
    );
    this._stream = page.client.stream({
      path: "/api/ops/stream",
      onEvent: (event) => this._take(event),
      onControl: (event) => this._take(event),
      onStatus: (status) => this._showStatus(status),
    });
    this._end = page.ticker.add((now) => this._status && this._banner.show(this._status, now));
    this._stream.start();
  }

  end() {
    this._end();
    this._stream.close();
  }

  focus() {
    this._title.focus({ preventScroll: true });
  }

  _showStatus(status) {
    this._status = status;
    this._pill.show(status);
    this._banner.show(status, Date.now());
    if (status.phase === "failed") this._waiting.hidden = true;
  }

  _take({ type, data }) {
    if (type !== "ops") return;
    this._waiting.hidden = true;
    this._body.hidden = false;
    for (const tile of this._tiles) tile.add(data);
    this._edges.show(data.edges, data.ts);
    this._workers.show(data.workers, data.ts);
    this._agents.show(data.agents ?? [], data.ts);
    this._redis.show(data.redis);
  }
}

class Tile {
  constructor({ label, unit = "", value, show }) {
    this._valueOf = value;
    this._show = show;
    this._value = h("span", { class: "tile-value numbers" }, "–");
    this._spark = new Sparkline();
    this.node = h(
      "li",
      { class: "tile" },
      h("span", { class: "tile-label" }, label),
      h("span", { class: "tile-number" }, this._value, unit && h("span", { class: "tile-unit" }, unit)),
      this._spark.node,
    );
  }

  add(snapshot) {
    const value = this._valueOf(snapshot);
    setText(this._value, value === null || value === undefined ? "–" : this._show(value));
    this._spark.add(value ?? 0);
  }
}

const EDGE_COLUMNS = [
  [
    "Edge",
    (edge) => [
      isolated(line(edge.id, 24), "mono"),
      edge.self && h("span", { class: "badge" }, "this one"),
      edge.draining && h("span", { class: "badge warn" }, "draining"),
    ],
  ],
  ["Viewers", (edge) => whole(edge.viewers)],
  ["Logs", (edge) => whole(edge.logs)],
  ["Events/s", (edge) => rate(edge.eventsPerSecond)],
  ["p50", (edge) => milliseconds(edge.latencyMs?.p50)],
  ["p99", (edge) => milliseconds(edge.latencyMs?.p99)],
  ["Lag", (edge) => milliseconds(edge.loopLagMs)],
  ["Memory", (edge) => (edge.rssBytes ? bytes(edge.rssBytes) : "–")],
  ["Up", (edge, now) => up(edge, now)],
];

const WORKER_COLUMNS = [
  ["Worker", (worker) => isolated(line(worker.host ? `${worker.host}:${worker.pid}` : worker.id, 40), "mono")],
  ["Agents", (worker) => line(worker.agents.join(", "), 300), "wraps"],
  ["Running", (worker) => `${whole(worker.running)} of ${whole(worker.concurrency)}`],
  ["Waiting", (worker) => whole(worker.waiting ?? 0)],
  ["Memory", (worker) => (worker.rssBytes ? bytes(worker.rssBytes) : "–")],
  ["Up", (worker, now) => up(worker, now)],
];

const AGENT_COLUMNS = [
  ["Agent", (agent) => isolated(line(agent.name, 60))],
  ["Workers", (agent) => whole(agent.workers)],
  ["Queued", (agent) => whole(agent.queued)],
  ["Oldest", (agent) => (agent.oldestMs === null || agent.oldestMs === undefined ? "–" : milliseconds(agent.oldestMs))],
];

const up = ({ startedAt }, now) => (startedAt ? age(Math.max(0, now - startedAt)).replace("now", "< 1 min") : "–");

/** A table whose cells are updated in place. */
class Table {
  constructor(title, columns, keyOf) {
    this._columns = columns;
    this._body = h("tbody");
    this._count = h("span", { class: "count numbers" });
    this._keyed = new Keyed(this._body, keyOf, (item) => this._row(item));
    this.node = h(
      "section",
      { class: "card" },
      h("h2", {}, title, this._count),
      h(
        "div",
        { class: "table-frame", tabindex: "0", role: "group", "aria-label": title },
        h(
          "table",
          {},
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              columns.map(([name, , side = "align-end"], index) =>
                h("th", { scope: "col", class: index ? side : null }, name),
              ),
            ),
          ),
          this._body,
        ),
      ),
    );
  }

  show(items, now) {
    this._now = now;
    setText(this._count, String(items.length));
    this._keyed.show(items);
  }

  _row(item) {
    const cells = this._columns.map(([, , side = "align-end numbers"], index) =>
      h("td", { class: index ? side : null }),
    );
    const update = (changed) => cells.forEach((cell, index) => fill(cell, this._columns[index][1](changed, this._now)));
    update(item);
    return { node: h("tr", {}, cells), update };
  }
}

function fill(cell, content) {
  if (typeof content === "string") setText(cell, visible(content));
  else cell.replaceChildren(...[content].flat().filter(Boolean));
}

class RedisCard {
  constructor() {
    this._state = h("span", { class: "pill" });
    this._meter = h("div", { class: "meter", hidden: true }, h("i"));
    this._facts = h("dl", { class: "pairs" });
    this._keyed = new Keyed(
      this._facts,
      ([key]) => key,
      (fact) => new RedisFact(fact),
    );
    this.node = h("section", { class: "card" }, h("h2", {}, "Redis", this._state), this._facts, this._meter);
  }

  show(redis) {
    const isUp = redis.up !== false;
    setAttribute(this._state, "data-tone", isUp ? "good" : "bad");
    this._state.replaceChildren(h("i", { class: "dot" }), isUp ? "Up" : "Down");
    const most = redis.maxMemoryBytes;
    this._meter.hidden = !most;
    if (most) setShare(this._meter, (100 * redis.usedMemoryBytes) / most);
    this._keyed.show(redisFacts(redis).filter(([, value]) => value !== null && value !== undefined));
  }
}

function redisFacts(redis) {
  const known = (value, show) => (value === null || value === undefined ? null : show(value));
  const node = redis.nodes?.[0];
  return [
    ["Problem", redis.error ? line(redis.error, 200) : null],
    ["Server", redis.version ? [node?.server ?? "", redis.version].join(" ").trim() : null],
    [
      "Mode",
      redis.nodes?.length > 1 ? `${redis.mode}, ${plural(redis.nodes.length, "node")}` : (redis.mode ?? redis.role),
    ],
    ["Ping", known(redis.pingMs, milliseconds)],
    ["Commands", known(redis.opsPerSecond, (value) => `${compact(value)}/s`)],
    ["Clients", known(redis.connectedClients, whole)],
    [
      "Memory",
      known(
        redis.usedMemoryBytes,
        (value) => bytes(value) + (redis.maxMemoryBytes ? ` of ${bytes(redis.maxMemoryBytes)}` : ""),
      ),
    ],
    ["Eviction", redis.evictionPolicy],
  ];
}

class RedisFact {
  constructor(fact) {
    this._value = h("dd", { class: "numbers" });
    this.node = h("div", {}, h("dt", {}, fact[0]), this._value);
    this.update(fact);
  }

  update([, value]) {
    setText(this._value, visible(value));
  }
}
