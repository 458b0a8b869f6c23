// Helpers of the official Node SDK against a running server (UNDERSTUDY_URL).

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = "SmolLM2-135M-Instruct";
const messages = [{ role: "user", content: "Which colour has the sky, and how sure are you?" }];
const baseURL = `${process.env.UNDERSTUDY_URL}/v1`;
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const Answer = z.object({
  colour: z.enum(["red", "blue"]),
  sure: z.boolean(),
  details: z.array(z.object({ digit: z.union([z.literal(1), z.literal(2)]) })).max(2).nullable(),
});
const City = z.object({ city: z.enum(["Paris", "Oslo"]) });

test("parse with zod", async () => {
  const response_format = zodResponseFormat(Answer, "answer");
  const reply = await client.chat.completions.parse({ model, messages, response_format, temperature: 0 });
  Answer.parse(reply.choices[0].message.parsed);
  const response = await client.responses.parse({ model, input: "Which colour?", text: { format: zodTextFormat(Answer, "answer") }, temperature: 0 });
  Answer.parse(response.output_parsed);
});

test("parsed tools", async () => {
  const tools = [zodFunction({ name: "get_weather", parameters: City })];
  const reply = await client.chat.completions.parse({ model, messages, tools, tool_choice: "required", parallel_tool_calls: false });
  City.parse(reply.choices[0].message.tool_calls[0].function.parsed_arguments);
  const flat = [zodResponsesFunction({ name: "get_weather", parameters: City })];
  const response = await client.responses.parse({ model, input: "Weather?", tools: flat, tool_choice: "required", parallel_tool_calls: false });
  City.parse(response.output[0].parsed_arguments);
});

test("events of a streamed chat", async () => {
  const seen = {};
  const note = (name) => (seen[name] = (seen[name] ?? 0) + 1);
  const stream = client.chat.completions.stream({
    model, messages, temperature: 0, response_format: zodResponseFormat(Answer, "answer"), logprobs: true,
    stream_options: { include_usage: true },
  });
  for (const name of ["connect", "chunk", "chatCompletion", "message", "content", "content.delta", "content.done", "logprobs.content.delta", "logprobs.content.done", "finalContent", "finalMessage", "finalChatCompletion", "end"]) {
    stream.on(name, () => note(name));
  }
  const final = await stream.finalChatCompletion();
  Answer.parse(final.choices[0].message.parsed);
  assert.ok((await stream.totalUsage()).completion_tokens > 0);
  for (const name of ["connect", "chatCompletion", "content.done", "finalContent", "end"]) assert.equal(seen[name], 1, name);
  assert.ok(seen["content.delta"] > 3 && seen["logprobs.content.delta"] > 3);
});

test("runTools runs the loop", async () => {
  const asked = [];
  const tool = {
    type: "function",
    function: {
      name: "get_weather", strict: true, parse: JSON.parse,
      parameters: { type: "object", properties: { city: { type: "string", enum: ["Paris", "Oslo"] } }, required: ["city"], additionalProperties: false },
      function: ({ city }) => { asked.push(city); return `12 degrees in ${city}`; },
    },
  };
  const choice = { type: "function", function: { name: "get_weather" } };
  const runner = client.chat.completions.runTools({ model, messages, tools: [tool], tool_choice: choice, max_tokens: 60, temperature: 0 });
  await runner.done();
  assert.ok(["Paris", "Oslo"].includes(asked[0]));
  assert.equal(await runner.finalFunctionToolCallResult(), `12 degrees in ${asked[0]}`);
  const streamed = client.chat.completions.runTools({ model, messages, tools: [tool], tool_choice: choice, max_tokens: 60, temperature: 0, stream: true }, { maxChatCompletions: 2 });
  let deltas = 0;
  streamed.on("tool_calls.function.arguments.delta", () => deltas++);
  await streamed.done();
  assert.equal(asked.length, 2);
  assert.ok(deltas > 0);
});

test("raw responses and request ids", async () => {
  const { data, response, request_id } = await client.chat.completions.create({ model, messages, max_tokens: 2 }).withResponse();
  assert.equal(response.headers.get("x-request-id"), request_id);
  assert.equal(data._request_id, request_id);
  assert.equal((await client.models.list().asResponse()).status, 200);
});

test("pages", async () => {
  const made = [];
  for (let i = 0; i < 3; i++) {
    made.push((await client.chat.completions.create({ model, messages, max_tokens: 1, store: true, metadata: { from: "helpers" } })).id);
  }
  const page = await client.chat.completions.list({ metadata: { from: "helpers" }, limit: 2 });
  assert.deepEqual(page.data.map((chat) => chat.id), made.slice(0, 2));
  assert.ok(page.hasNextPage());
  assert.deepEqual((await page.getNextPage()).data.map((chat) => chat.id), made.slice(2));
  for (const id of made) await client.chat.completions.delete(id);
});

test("a time limit is an error of its own", async () => {
  const ask = { model, messages, max_tokens: 4000, ignore_eos: true };
  await assert.rejects(client.chat.completions.create(ask, { timeout: 300 }), OpenAI.APIConnectionTimeoutError);
});
