// The model that `MODEL` names (`openai/gpt-5`, by the AI Gateway and its key). Without it a scripted one that needs no
// network: it calls `list`, then `remove` for the largest file, and says what became of it.
import { type LanguageModel, simulateReadableStream } from "ai";
import { MockLanguageModelV4 } from "ai/test";

type Step = Awaited<ReturnType<MockLanguageModelV4["doStream"]>>;
type Part = Step["stream"] extends ReadableStream<infer P> ? P : never;

export function model(): LanguageModel {
  return (
    process.env.MODEL ??
    new MockLanguageModelV4({ modelId: "scripted", doStream: async ({ prompt }) => answer(prompt) })
  );
}

function answer(prompt: readonly { role: string; content: unknown }[]): Step {
  const results = prompt.filter(({ role }) => role === "tool").flatMap(({ content }) => content as ToolPart[]);
  const outputs = results.filter(({ type }) => type === "tool-result").map(({ output }) => output);
  if (outputs.length === 0) return step(call("list", {}));
  if (outputs.length === 1) {
    const files = outputs[0].value as { name: string; bytes: number }[];
    const [largest] = files.toSorted((one, other) => other.bytes - one.bytes);
    return step(call("remove", { name: largest.name }));
  }
  const last = outputs.at(-1);
  return step(...text(last?.type === "text" ? `Done: ${last.value}.` : "The file stays, as you wish."));
}

interface ToolPart {
  type: string;
  output: { type: string; value: unknown };
}

function call(toolName: string, input: object): Part {
  return { type: "tool-call", toolCallId: `${toolName}-${Date.now()}`, toolName, input: JSON.stringify(input) };
}

function text(said: string): Part[] {
  const words = said.split(/(?<= )/);
  return [
    { type: "text-start", id: "0" },
    ...words.map((delta): Part => ({ type: "text-delta", id: "0", delta })),
    { type: "text-end", id: "0" },
  ];
}

function step(...parts: Part[]): Step {
  const reason = parts[0].type === "tool-call" ? "tool-calls" : "stop";
  const input = { total: 20, noCache: 20, cacheRead: 0, cacheWrite: 0 };
  const usage = { inputTokens: input, outputTokens: { total: 10, text: 10, reasoning: 0 } };
  const chunks: Part[] = [
    { type: "stream-start", warnings: [] },
    { type: "response-metadata", modelId: "scripted" },
    ...parts,
    { type: "finish", finishReason: { unified: reason, raw: reason }, usage },
  ];
  return { stream: simulateReadableStream({ chunks, chunkDelayInMs: 50 }) };
}
