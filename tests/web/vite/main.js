// An application that has the client from npm, for test_client_vite.py.
import { RuncastClient } from "@runcast/client";
import workerUrl from "@runcast/client/shared-worker?sharedworker&url";

/** Follow a stream in `mode: "shared"`; its last status is `status`. */
window.follow = (token, executionId, given) => {
  const onStatus = (status) => (window.status_ = { ...status, error: status.error?.message ?? null });
  const options = { executionId, mode: "shared", onStatus, ...(given ? { workerUrl } : {}) };
  window.stream = new RuncastClient({ token }).stream(options).start();
};
