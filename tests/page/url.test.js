import assert from "node:assert/strict";
import { test } from "node:test";

import { VIEWS, formatView, parseView } from "../../agent/publish/page/url.js";
import { random } from "./make.js";

const USUAL = { words: "", view: "table", sort: "", descending: false, columns: [], all: false, token: "", recording: false };

test("the usual view has no query", () => {
  assert.deepEqual(parseView("", ""), USUAL);
  assert.equal(formatView(USUAL), "");
});

test("filters and targets are words", () => {
  const view = parseView("?port=443&addr!=10.0.0.0/8&target=nginx&view=events&:8080", "");
  assert.equal(view.words, "port=443 addr!=10.0.0.0/8 nginx :8080");
  assert.equal(view.view, "events");
});

test("the address of a view", () => {
  const view = {
    ...USUAL, words: 'port=443 addr!=10.0.0.0/8 nginx :8080 comm="a b"', view: "map", sort: "age",
    descending: true, columns: ["process", "pid"], all: true, token: "secret", recording: true,
  };
  const text = formatView(view);
  assert.equal(
    text,
    "?port=443&addr!=10.0.0.0/8&target=nginx&target=:8080&comm=a%20b&view=map&sort=-age&columns=process,pid&all=1&recording",
  );
  assert.deepEqual(parseView(text, ""), { ...view, token: "" });
});

test("the token is in the fragment only", () => {
  assert.equal(parseView("?token=x", "#token=a%2Bb").token, "a+b");
  assert.equal(parseView("", "#other").token, "");
});

test("what makes no sense is as if absent", () => {
  assert.deepEqual(parseView("?view=nothing&sort=&columns=,&all=&target=", ""), USUAL);
});

test("any view comes back from its address", () => {
  const next = random(3);
  const pick = (values) => values[Math.floor(next() * values.length)];
  const words = ["nginx", ":80", "port=1-9,80", "comm!=a&b", "view=x", "sort", "target=7", "10.0.0.7:443", "a%b", "@é"];
  for (let run = 0; run < 500; run += 1) {
    const view = {
      words: [pick(words), pick(words)].join(" "), view: pick(VIEWS), sort: pick(["age", "pid"]),
      descending: next() < 0.5, columns: pick([[], ["pid"], ["pid", "local"]]), token: "",
      all: next() < 0.5,
      recording: next() < 0.5,
    };
    assert.deepEqual(parseView(formatView(view), ""), view);
  }
});
