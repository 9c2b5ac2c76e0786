"""The UI message stream of the Vercel AI SDK: `useChat` as a client of executions."""
