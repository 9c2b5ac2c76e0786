import { RuncastClient } from "@runcast/client";

const client = new RuncastClient({ baseUrl: process.env.RUNCAST_URL, token: process.env.RUNCAST_TOKEN });
const { executionId } = await client.execute({ agent: "counter", task: "Count" });

for await (const event of client.stream({ executionId })) console.log(event.type);
console.log((await client.execution(executionId)).status);
