import assert from "node:assert/strict";
import { test } from "node:test";

import { Line } from "../../agent/publish/page/line.js";
import { hello, lost, random } from "./make.js";

const NOW = new Date(2026, 10, 28, 3, 12, 4).getTime();
const live = () => {
  const line = new Line(NOW);
  line.connecting();
  line.hello(hello(1), undefined, NOW);
  return line;
};

test("connecting, then live", () => {
  const line = new Line(NOW);
  line.connecting();
  assert.equal(line.state(NOW).kind, "connecting");
  line.hello(hello(1), undefined, NOW);
  assert.deepEqual(line.state(NOW), {
    kind: "live", text: "live", retryAt: null, behind: 0, paused: false, notice: "",
  });
});

test("paused counts the changes that are not shown", () => {
  const line = live();
  line.received(7, NOW);
  line.pause();
  line.received(400, NOW);
  line.received(812, NOW);
  assert.deepEqual([line.state(NOW).kind, line.state(NOW).text], ["paused", "paused (1,212 behind)"]);
  line.caughtUp();
  assert.equal(line.state(NOW).text, "paused (0 behind)");
  line.received(3, NOW);
  assert.equal(line.state(NOW).text, "paused (3 behind)");
  line.resume();
  assert.deepEqual([line.state(NOW).kind, line.state(NOW).behind], ["live", 0]);
});

test("cut off, and the next attempt", () => {
  const line = live();
  line.closed("", NOW + 20_000, 1);
  assert.equal(line.state(NOW + 20_000).retryAt, NOW + 20_500);
  assert.equal(line.state(NOW + 20_000).text, "cut off since 03:12:24, again in 1 s");
  line.connecting();
  assert.deepEqual(
    [line.state(NOW + 21_000).kind, line.state(NOW + 21_000).text],
    ["cut off", "cut off since 03:12:24, connecting"],
  );
  line.closed("the agent is stopping", NOW + 22_000, 1);
  assert.equal(line.state(NOW + 22_000).text, "cut off since 03:12:24 (the agent is stopping), again in 1 s");
  line.pause();
  assert.match(line.state(NOW + 22_000).text, /again in 1 s; paused \(0 behind\)$/);
});

test("the backoff doubles from half a second to 30, with jitter, and begins anew after a good connection", () => {
  const next = random(1);
  const line = live();
  let now = NOW;
  for (const base of [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
    line.closed("", now, next());
    const delay = line.state(now).retryAt - now;
    assert.ok(delay >= base / 2 && delay < base, `${delay} of ${base}`);
    now += delay;
    line.connecting();
    line.hello(hello(1), { epoch: "e1", seq: 1 }, now); // It is cut at once.
  }
  line.closed("", now + 10_000, 1);
  assert.equal(line.state(now).retryAt, now + 10_500);
});

test("what a new connection begins with", () => {
  const before = { epoch: "e1", seq: 1199 };
  const notice = (record, known = before) => {
    const line = live();
    line.hello(record, known, NOW);
    return line.state(NOW).notice;
  };
  assert.equal(notice(hello(1300, { resumed: true })), "resumed, nothing missed");
  assert.equal(notice(hello(1199)), "resumed, nothing missed");
  assert.equal(notice(hello(1260)), "lost 1200–1260");
  assert.equal(notice(hello(7, { epoch: "e2" })), "began anew");
  assert.equal(notice(hello(7), { epoch: null, seq: 0 }), "");
});

test("lost, and notices end", () => {
  const line = live();
  line.lost(lost(9, 1200, 1260), NOW);
  assert.equal(line.state(NOW).notice, "lost 1200–1260");
  assert.equal(line.state(NOW + 15_000).notice, "");
  line.lost(lost(9, 1200, null), NOW);
  assert.equal(line.state(NOW).notice, "lost 1200 on");
});

test("stale after 35 s without a record", () => {
  const line = live();
  assert.equal(line.state(NOW + 34_999).kind, "live");
  assert.deepEqual(
    [line.state(NOW + 36_000).kind, line.state(NOW + 36_000).text],
    ["stale", "stale: no record for 36 s"],
  );
  line.received(1, NOW + 36_000);
  assert.equal(line.state(NOW + 36_000).kind, "live");
});

test("what the agent refuses", () => {
  const of = (status) => {
    const line = live();
    line.refused(status, "port: invalid", NOW, 0);
    return line.state(NOW);
  };
  assert.deepEqual([of(400).kind, of(400).text], ["refused", "refused: port: invalid"]);
  assert.equal(of(401).kind, "token");
  assert.equal(of(403).retryAt, null);
  assert.equal(of(501).kind, "refused");
  assert.deepEqual([of(503).kind, of(503).retryAt], ["cut off", NOW + 250]);
});

test("a replay", () => {
  const line = new Line(NOW);
  line.replay("incident.ndjson");
  assert.deepEqual(
    [line.state(NOW + 99_000).kind, line.state(NOW).text], ["replay", "replay of incident.ndjson"],
  );
});
