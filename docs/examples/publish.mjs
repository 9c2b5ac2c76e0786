import { AgentEmitter } from "@runcast/emitter";

const emitter = new AgentEmitter({ url: process.env.RUNCAST_URL, token: process.env.RUNCAST_TOKEN });
console.log(emitter.executionId); // people watch it by this id

await emitter.run("Create a landing page", async () => {
  await emitter.phase("research", "Research", () => emitter.thinking({ thought: "What do others show?" }));
  for (const chunk of ["A ", "fine ", "page."]) await emitter.text(chunk);
  return { pages: 1 };
});
await emitter.close();
