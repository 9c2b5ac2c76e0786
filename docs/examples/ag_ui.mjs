import { HttpAgent } from "@ag-ui/client";

const agent = new HttpAgent({
  url: `${process.env.RUNCAST_URL}/ag-ui/reporter`,
  headers: { Authorization: `Bearer ${process.env.RUNCAST_TOKEN}` },
});
agent.addMessage({ id: crypto.randomUUID(), role: "user", content: "How did March go?" });
await agent.runAgent({}, { onTextMessageContentEvent: ({ event }) => process.stdout.write(event.delta) });
