/** The pages by address. */

import { ComparePage } from "./compare-page.js";
import { ExecutionPage } from "./execution-page.js";
import { OpsPage } from "./ops-page.js";
import { StartPage } from "./start-page.js";

const ID = "([A-Za-z0-9_-]{1,64})";
/** An execution, or one attempt of it: `ex_1@2`. */
const RUN = "([A-Za-z0-9_-]{1,64}(?:@[1-9][0-9]{0,3})?)";

/** A page's name, the pattern of its path, and how it is made from `page`, the ids in the path, and the query. */
const ROUTES = [
  ["execution", new RegExp(`^/x/${ID}$`), (page, [id], query) => new ExecutionPage(page, id, query)],
  ["compare", new RegExp(`^/compare/${RUN}(?:/${RUN})?$`), (page, [one, other]) => new ComparePage(page, one, other)],
  ["new", /^\/new$/, (page, _, query) => new StartPage(page, idOf(query.get("from")))],
  ["ops", /^\/ops$/, (page) => new OpsPage(page)],
];

export const TITLES = {
  list: "Executions",
  execution: "Execution",
  compare: "Compare",
  ops: "Operations",
  new: "New execution",
};

/** `{name, ids, query, make}` for the part of an address from its `#`; `make` is null where there is no page. */
export function routeOf(hash) {
  const [path, search = ""] = hash.slice(1).split("?", 2);
  const query = new URLSearchParams(search);
  for (const [name, pattern, make] of ROUTES) {
    const match = pattern.exec(path);
    if (match) return { name, ids: match.slice(1), query, make };
  }
  return { name: "list", ids: [], query, make: null };
}

const idOf = (text) => (text !== null && new RegExp(`^${ID}$`).test(text) ? text : null);
