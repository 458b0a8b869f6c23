// Files through the official Node SDK (UNDERSTUDY_URL names a server with --store-dir).

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.env.UNDERSTUDY_URL}/v1`, apiKey: "unused", maxRetries: 0 });

test("upload, list, content, delete", async () => {
  const text = "one\r\ntwo \u{1f600}\n".repeat(1000);
  const expires_after = { anchor: "created_at", seconds: 3600 };
  const made = await client.files.create({ file: await toFile(Buffer.from(text), 'a "b".txt'), purpose: "user_data", expires_after });
  assert.equal(made.filename, 'a "b".txt');
  assert.equal(made.bytes, Buffer.byteLength(text));
  assert.equal(made.expires_at, made.created_at + 3600);
  const other = await client.files.create({ file: await toFile(Buffer.from("x"), "x"), purpose: "batch" });
  const listed = [];
  for await (const file of client.files.list({ limit: 1, order: "asc" })) listed.push(file.id);
  assert.deepEqual(listed, [made.id, other.id]);
  assert.equal(await (await client.files.content(made.id)).text(), text);
  for (const { id } of [made, other]) assert.ok((await client.files.delete(id)).deleted);
  await assert.rejects(client.files.retrieve(made.id), OpenAI.NotFoundError);
});
