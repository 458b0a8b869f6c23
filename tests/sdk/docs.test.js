// The script of the reference page, over a document that has no more than it uses.

import assert from "node:assert/strict";
import { test } from "node:test";
import vm from "node:vm";

const url = process.env.UNDERSTUDY_URL;

class Element {
  constructor(name) {
    this.name = name;
    this.children = [];
    this.listeners = {};
    this.textContent = "";
  }
  append(...children) {
    this.children.push(...children);
  }
  addEventListener(kind, listener) {
    this.listeners[kind] = listener;
  }
  /** All elements of this name, below this one. */
  all(name) {
    const below = this.children.filter((child) => child instanceof Element);
    return below.flatMap((child) => [...(child.name === name ? [child] : []), ...child.all(name)]);
  }
}

test("the page shows every operation and opens what it holds", async () => {
  const page = await (await fetch(`${url}/docs`)).text();
  const script = page.match(/<script>\n([^]*)<\/script>/)[1];
  const known = { operations: new Element("main"), about: new Element("p") };
  let answered;
  const done = new Promise((resolve) => (answered = resolve));
  const context = {
    document: { createElement: (name) => new Element(name), getElementById: (id) => known[id] },
    fetch: async (path) => {
      const answer = await fetch(`${url}/${path}`);
      return { json: async () => { setTimeout(answered, 200); return answer.json(); } };
    },
  };
  vm.runInNewContext(script, context);
  await done;
  const api = await (await fetch(`${url}/openapi.json`)).json();
  const n = Object.values(api.paths).flatMap((methods) => Object.keys(methods)).length;
  assert.match(known.about.textContent, /Version/);
  assert.equal(known.operations.children.length, n);
  const inner = known.operations.all("details").filter((one) => one.listeners.toggle);
  assert.ok(inner.length > 20);
  for (const one of inner) one.listeners.toggle();
  assert.ok(inner.every((one) => one.children.length > 1));
});
