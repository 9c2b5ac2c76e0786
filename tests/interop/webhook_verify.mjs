// Verifies messages with the official package: `webhook_verify.mjs '{"secret", "messages": [{"headers", "body"}]}'`
// prints for each what it holds, or the error's text.
import { Webhook } from "standardwebhooks";

const { secret, messages } = JSON.parse(process.argv[2]);
const webhook = new Webhook(secret);
const outcomes = messages.map(({ headers, body }) => {
  try {
    return webhook.verify(body, headers);
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(outcomes));
