import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";

export function Chat({ edge, token, chatId }) {
  const headers = { Authorization: `Bearer ${token}` };
  const transport = new DefaultChatTransport({ api: `${edge}/api/agent/chat`, headers, body: { agent: "reporter" } });
  const { messages, sendMessage } = useChat({ id: chatId, transport, resume: true });
  return (
    <main>
      {messages.map(({ id, role, parts }) => (
        <p key={id}>{role}: {parts.filter(({ type }) => type === "text").map(({ text }) => text)}</p>
      ))}
      <button onClick={() => sendMessage({ text: "How did March go?" })}>Ask</button>
    </main>
  );
}
