// Embeddings through the official Node SDK against a running encoder (UNDERSTUDY_URL).

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const model = "minilm";
const client = new OpenAI({ baseURL: `${process.env.UNDERSTUDY_URL}/v1`, apiKey: "unused", maxRetries: 0 });

test("base64 by default and float on demand are the same vector", async () => {
  const input = ["A cat sits on the mat.", "The stock market fell sharply on Monday."];
  const answer = await client.embeddings.create({ model, input });
  const floats = await client.embeddings.create({ model, input, encoding_format: "float" });
  assert.equal(answer.data.length, 2);
  for (const [i, item] of answer.data.entries()) {
    assert.equal(item.index, i);
    // Decimals are the shortest that give the same 32 bits.
    assert.deepEqual(item.embedding, floats.data[i].embedding.map(Math.fround));
  }
  assert.ok(answer.usage.prompt_tokens > 0);
});

test("errors name the parameter", async () => {
  await assert.rejects(client.embeddings.create({ model, input: "" }), (error) => error.status === 400 && error.param === "input");
});
