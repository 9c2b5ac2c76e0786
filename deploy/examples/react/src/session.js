import { useCallback, useEffect, useState } from "react";

const KEY = "runcast-example-token";

/**
 * The token, from earlier in this tab, or on your own machine from `#token=…` (which then disappears from the address).
 * Anybody can send such a link: it replaces nobody who is signed in, and signs nobody in where others can reach the page.
 */
export function useToken() {
  const [token, setToken] = useState(() => sessionStorage.getItem(KEY) || (isOwnMachine() && tokenInAddress()) || "");
  useEffect(() => {
    sessionStorage.setItem(KEY, token);
    if (tokenInAddress()) history.replaceState(null, "", location.pathname);
  }, [token]);
  return [token, setToken];
}

function isOwnMachine() {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}

function tokenInAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("token");
}

/** The execution that is shown is in the address, so that a reload, the back button and a link find it again. */
export function useExecutionInAddress() {
  const [executionId, setExecutionId] = useState(executionInAddress);
  useEffect(() => {
    const follow = () => setExecutionId(executionInAddress());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const choose = useCallback((chosen) => {
    location.hash = chosen;
  }, []);
  return [executionId, choose];
}

function executionInAddress() {
  return /^#([A-Za-z0-9_-]{1,64})$/.exec(location.hash)?.[1] ?? null;
}
