// Anthropic's Node SDK against `/v1/messages`.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.UNDERSTUDY_URL, apiKey: "unused", maxRetries: 0 });
const ask = {
  model: "SmolLM2-135M-Instruct",
  max_tokens: 12,
  temperature: 0,
  messages: [{ role: "user", content: "Say hello." }],
};

test("a message", async () => {
  const message = await client.messages.create(ask);
  assert.equal(message.type, "message");
  assert.ok(message.content[0].text.length > 0);
  assert.ok(message.usage.output_tokens > 0);
});

test("a stream folds to the same message", async () => {
  const whole = await client.messages.create(ask);
  const folded = await client.messages.stream(ask).finalMessage();
  assert.deepEqual(folded.content, whole.content);
  assert.equal(folded.stop_reason, whole.stop_reason);
});

test("an error has its class", async () => {
  await assert.rejects(client.messages.create({ ...ask, model: "nobody" }), Anthropic.NotFoundError);
});
