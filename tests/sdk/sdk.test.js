// The official Node SDK against a running server (UNDERSTUDY_URL).

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const model = "SmolLM2-135M-Instruct";
const messages = [{ role: "user", content: "What is 2+2?" }];
const answer = "The answer to this classic math problem is 4.";
const client = new OpenAI({ baseURL: `${process.env.UNDERSTUDY_URL}/v1`, apiKey: "unused", maxRetries: 0 });

test("chat", async () => {
  const reply = await client.chat.completions.create({ model, messages, temperature: 0 });
  assert.equal(reply.choices[0].message.content, answer);
  assert.equal(reply.usage.completion_tokens, 12);
  assert.ok(reply._request_id);
});

test("an answer is taken back as it came", async () => {
  const first = await client.chat.completions.create({ model, messages, temperature: 0 });
  const stream = client.chat.completions.stream({ model, messages, temperature: 0 });
  const folded = await stream.finalChatCompletion();
  for (const { message } of [first.choices[0], folded.choices[0]]) {
    const again = await client.chat.completions.create({ model, messages: [...messages, message, ...messages], max_tokens: 4 });
    assert.ok(again.usage.prompt_tokens > first.usage.total_tokens);
  }
});

test("streaming helper folds n choices", async () => {
  const stream = client.chat.completions.stream({ model, messages, n: 3, seed: 4, temperature: 0.9, max_tokens: 20 });
  const final = await stream.finalChatCompletion();
  const whole = await client.chat.completions.create({ model, messages, n: 3, seed: 4, temperature: 0.9, max_tokens: 20 });
  assert.deepEqual(final.choices.map((c) => c.message.content), whole.choices.map((c) => c.message.content));
});

test("streaming by hand", async () => {
  const stream = await client.chat.completions.create({ model, messages, temperature: 0, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, answer);
});

test("completions, n, stop and logprobs", async () => {
  const reply = await client.completions.create({ model, prompt: "One, two, three,", n: 3, temperature: 0, max_tokens: 8, logprobs: 2 });
  assert.equal(reply.choices.length, 3);
  assert.equal(reply.choices[0].text, reply.choices[2].text);
  assert.equal(reply.choices[0].logprobs.tokens.join(""), reply.choices[0].text);
  const stopped = await client.chat.completions.create({ model, messages, temperature: 0, stop: "math" });
  assert.equal(stopped.choices[0].message.content, "The answer to this classic ");
});

test("responses, streamed, stored and followed", async () => {
  const first = await client.responses.create({ model, input: "What is 2+2?", temperature: 0 });
  assert.equal(first.output_text, answer);
  assert.deepEqual((await client.responses.retrieve(first.id)).output, first.output);
  const stream = client.responses.stream({ model, input: "What is 2+2?", temperature: 0 });
  const final = await stream.finalResponse();
  assert.equal(final.output_text, answer);
  const next = await client.responses.create({ model, input: "And 3+3?", previous_response_id: first.id, max_output_tokens: 16 });
  assert.ok(next.usage.input_tokens > first.usage.total_tokens);
  const items = [];
  for await (const item of client.responses.inputItems.list(next.id)) items.push(item);
  assert.equal(items[0].content[0].text, "And 3+3?");
});

test("conversations and stored chats by pages", async () => {
  const conversation = await client.conversations.create({ items: [{ role: "user", content: "Hello" }] });
  await client.responses.create({ model, conversation: conversation.id, input: "Hi", max_output_tokens: 16 });
  const roles = [];
  for await (const item of client.conversations.items.list(conversation.id, { order: "asc", limit: 2 })) roles.push(item.role);
  assert.deepEqual(roles, ["user", "user", "assistant"]);
  const made = await client.chat.completions.create({ model, messages, temperature: 0, store: true, metadata: { from: "node" } });
  const found = [];
  for await (const chat of client.chat.completions.list({ metadata: { from: "node" }, limit: 1 })) found.push(chat.id);
  assert.deepEqual(found, [made.id]);
  assert.ok((await client.chat.completions.delete(made.id)).deleted);
});

test("models", async () => {
  const ids = [];
  for await (const entry of client.models.list()) ids.push(entry.id);
  assert.deepEqual(ids, [model]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("errors map to classes", async () => {
  await assert.rejects(client.chat.completions.create({ model: "nope", messages }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ model, messages, temperature: 9 }), OpenAI.BadRequestError);
  await assert.rejects(client.models.retrieve("org/name:x"), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
});

test("abort frees the server", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true, ignore_eos: true, max_tokens: 2000 });
  for await (const _ of stream) break;
  stream.controller.abort();
  for (let i = 0; i < 200; i++) {
    const text = await (await fetch(`${process.env.UNDERSTUDY_URL}/metrics`)).text();
    if (/^understudy_kv_blocks_in_use 0$/m.test(text)) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  assert.fail("blocks still in use");
});
