import { useCallback, useEffect, useState } from "react";

const KEY = "runcast-example-token";

/**
 * The token: the one stored for this tab, or on localhost the one in `#token=…`, which is then removed from the address.
 * Anybody can send such a link. It never replaces a user who is signed in, and works on localhost only.
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

/** The selected execution is in the address, for reloads, the back button and links. */
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
