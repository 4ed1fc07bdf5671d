import assert from "node:assert/strict";
import { test } from "node:test";

import { encode, eventsPath, joinWords, splitWords } from "../../agent/publish/page/query.js";
import { random } from "./make.js";

test("words are split at blanks, not within quotes", () => {
  assert.deepEqual(splitWords(" port=443  addr!=10.0.0.0/8\tnginx :8080 "), ["port=443", "addr!=10.0.0.0/8", "nginx", ":8080"]);
  assert.deepEqual(splitWords('comm="web worker" x'), ["comm=web worker", "x"]);
  assert.deepEqual(splitWords('"open ended'), ["open ended"]);
  assert.deepEqual(splitWords(' "" '), []);
});

test("joined words are split into the same words", () => {
  const next = random(7);
  for (let run = 0; run < 500; run += 1) {
    const words = Array.from({ length: Math.floor(next() * 4) }, () =>
      Array.from({ length: 1 + Math.floor(next() * 5) }, () => "ab=: \t!/"[Math.floor(next() * 8)]).join(""),
    );
    assert.deepEqual(splitWords(joinWords(words)), words);
  }
});

test("each word is a target", () => {
  assert.equal(eventsPath(""), "/events");
  assert.equal(eventsPath("port=443 addr!=10.0.0.0/8"), "/events?target=port%3D443&target=addr!%3D10.0.0.0/8");
});

test("positions follow, in order", () => {
  assert.equal(
    eventsPath(":8080", [["a&b", 7], ["c", 9]]),
    "/events?target=:8080&epoch=a%26b&since=7&epoch=c&since=9",
  );
});

test("encoded text decodes to itself", () => {
  const text = "a=b&c d+e%20#?/:,@[]é🦊";
  assert.equal(new URLSearchParams(`x=${encode(text)}`).get("x"), text);
});
