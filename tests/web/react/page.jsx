// A page of probes: components that call one hook each and put what it returned where a test can look. `show(probes)`
// renders them in StrictMode under one provider; what is not among them any more is unmounted.
import { StrictMode, useEffect } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { version } from "react";
import { RuncastClient } from "@runcast/client";
import * as hooks from "@runcast/client/react";
import * as stores from "@runcast/client/store";

const { RuncastProvider } = hooks;

/** By a probe's name: what its hook returned last, how often it rendered, what `onEvent` heard. */
const seen = {};
const renders = {};
const heard = {};

function Probe({ name, use, args = [], listens = false }) {
  const given = [...args];
  if (listens) given.push({ ...given.splice(1)[0], onEvent: (event) => (heard[name] ??= []).push(event.id) });
  const value = hooks[use](...given);
  renders[name] = (renders[name] ?? 0) + 1;
  useEffect(() => {
    seen[name] = value;
    return () => delete seen[name];
  });
  return <output>{value.status.phase}</output>;
}

/** Two components that look at one execution: how often they saw different things in one render is `seen.torn`. */
function Pair({ executionId }) {
  const { state } = hooks.useAgentSSE(executionId);
  return <Second executionId={executionId} first={state} />;
}

function Second({ executionId, first }) {
  const { state } = hooks.useAgentSSE(executionId);
  seen.torn = (seen.torn ?? 0) + (state === first ? 0 : 1);
  seen.pair = state;
  return null;
}

/** Follows an execution into the page's store, and shows one slice of it. */
function Stored({ name, executionId, select, options }) {
  stores.useStoredExecution(executionId, undefined, options);
  return <Slice name={name} select={select} />;
}

function Slice({ name, select }) {
  const value = stores.useAgentStore((state) => state[select]);
  renders[name] = (renders[name] ?? 0) + 1;
  useEffect(() => {
    seen[name] = value;
  });
  return null;
}

const KINDS = { probe: Probe, pair: Pair, stored: Stored, slice: Slice };

/** Options of the provider; a test may change them: `page.provider = {...}`. */
const page = { provider: {} };

function tree(probes) {
  return (
    <StrictMode>
      <RuncastProvider {...page.provider}>
        {probes.map(({ kind = "probe", ...probe }) => {
          const Kind = KINDS[kind];
          return <Kind key={probe.name} {...probe} />;
        })}
      </RuncastProvider>
    </StrictMode>
  );
}

let root = null;
function show(probes) {
  root ??= createRoot(document.getElementById("root"));
  root.render(tree(probes));
}

/** What a server would send, and what becomes of it in the browser. */
function hydrate(probes) {
  const element = document.getElementById("root");
  const html = renderToString(tree(probes));
  element.innerHTML = html;
  root = hydrateRoot(element, tree(probes), {
    onRecoverableError: (error) => console.error("not hydrated", error),
  });
  return html;
}

/** What a hook says without a provider. */
function renderBare() {
  try {
    return renderToString(<Probe name="bare" use="useAgentFeed" />);
  } catch (error) {
    return error.message;
  }
}

Object.assign(window, { version, page, show, hydrate, renderBare, seen, renders, heard, hooks, stores, RuncastClient });
document.title = version;
