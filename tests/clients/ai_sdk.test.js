// The Vercel AI SDK against a running server (UNDERSTUDY_URL), by each of its ways there.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const id = "SmolLM2-135M-Instruct";
const prompt = "What is 2+2?";
const answer = "The answer to this classic math problem is 4.";
const baseURL = `${process.env.UNDERSTUDY_URL}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "unused" });
const compatible = createOpenAICompatible({
  name: "understudy", baseURL, apiKey: "unused", includeUsage: true, supportsStructuredOutputs: true,
});
const models = { responses: openai.responses(id), chat: openai.chat(id), compatible: compatible.chatModel(id) };
const weather = z.object({ city: z.enum(["Paris", "Oslo"]), degrees: z.union([z.literal(7), z.literal(12)]), rain: z.boolean() });

for (const [name, model] of Object.entries(models)) {
  const common = { model, temperature: 0, maxRetries: 0, maxOutputTokens: 300 };

  test(`${name}: plain`, async () => {
    const { text, usage, finishReason } = await generateText({ ...common, prompt });
    assert.equal(text, answer);
    assert.equal(usage.outputTokens, 12);
    assert.equal(finishReason, "stop");
  });

  test(`${name}: streamed`, async () => {
    const stream = streamText({ ...common, prompt, onError: ({ error }) => { throw error; } });
    const pieces = [];
    for await (const piece of stream.textStream) pieces.push(piece);
    assert.equal(pieces.join(""), answer);
    assert.ok(pieces.length > 5);
    assert.equal((await stream.usage).outputTokens, 12);
  });

  test(`${name}: structured`, async () => {
    const whole = await generateText({ ...common, prompt: "The weather of Oslo?", output: Output.object({ schema: weather }) });
    assert.ok(weather.safeParse(whole.output).success);
    const stream = streamText({ ...common, prompt: "The weather of Oslo?", output: Output.object({ schema: weather }) });
    let last;
    for await (const partial of stream.partialOutputStream) last = partial;
    assert.deepEqual(last, whole.output);
  });

  test(`${name}: tools`, async () => {
    const asked = [];
    const tools = {
      get_weather: tool({
        description: "The weather of a city",
        inputSchema: z.object({ city: z.enum(["Paris", "Oslo"]) }),
        execute: async ({ city }) => { asked.push(city); return `12 degrees in ${city}`; },
      }),
    };
    const run = await generateText({
      ...common, tools, prompt: "The weather of Oslo?", stopWhen: stepCountIs(2),
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
    });
    assert.ok(asked.length > 0 && ["Paris", "Oslo"].includes(asked[0]));
    assert.equal(run.steps.length, 2);
    assert.ok(run.text.length > 0);
    const stream = streamText({ ...common, tools, prompt: "The weather of Oslo?", toolChoice: "required" });
    const calls = [];
    for await (const part of stream.fullStream) if (part.type === "tool-call") calls.push(part.input);
    assert.ok(calls.length > 0 && !calls.some((input) => !["Paris", "Oslo"].includes(input.city)));
  });
}
