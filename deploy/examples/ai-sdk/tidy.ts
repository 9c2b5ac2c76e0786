// The agent: it looks for the largest file of a folder, and removes it if a person approves.
import { readdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { isStepCount, ToolLoopAgent, tool } from "ai";
import { z } from "zod";
import { model } from "./model.ts";

export function tidy(folder: string) {
  const list = tool({
    description: "Lists the files of the folder with their sizes in bytes",
    inputSchema: z.object({}),
    execute: async () => {
      const names = (await readdir(folder)).sort();
      return Promise.all(names.map(async (name) => ({ name, bytes: (await stat(join(folder, name))).size })));
    },
  });
  const remove = tool({
    description: "Removes a file of the folder",
    inputSchema: z.object({ name: z.string() }),
    needsApproval: true,
    execute: async ({ name }) => {
      await rm(join(folder, basename(name)));
      return `${name} is removed`;
    },
  });
  const instructions = "List the files, then remove the largest one. Say in one sentence what you did.";
  return new ToolLoopAgent({ model: model(), instructions, tools: { list, remove }, stopWhen: isStepCount(8) });
}
