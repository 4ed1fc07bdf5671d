import assert from "node:assert/strict";
import { test } from "node:test";

import { Rates, average } from "../../agent/publish/page/rates.js";

const NOW = 1_700_000_000_000;

test("opens and closes of whole seconds, the oldest first", () => {
  const rates = new Rates(4);
  rates.open(NOW);
  rates.open(NOW + 999);
  rates.close(NOW + 2500);
  rates.open(NOW + 4000); // The second that is not over.
  const { opens, closes } = rates.series(NOW + 4100);
  assert.deepEqual(opens, [2, 0, 0, 0]);
  assert.deepEqual(closes, [0, 0, 1, 0]);
});

test("seconds before the first record are unknown", () => {
  const rates = new Rates(4);
  rates.open(NOW + 2000);
  assert.deepEqual(rates.series(NOW + 4000).opens, [null, null, 1, 0]);
  assert.deepEqual(new Rates(2).series(NOW).closes, [null, null]);
});

test("old seconds make room, and what is too old counts nowhere", () => {
  const rates = new Rates(3);
  for (let second = 0; second < 10; second += 1) rates.open(NOW + 1000 * second);
  rates.open(NOW);
  assert.deepEqual(rates.series(NOW + 10_000).opens, [1, 1, 1]);
  assert.deepEqual(rates.series(NOW + 12_000).opens, [1, 0, 0]);
});

test("the gauge lasts until the next one", () => {
  const rates = new Rates(4);
  rates.gauge(NOW, 3);
  rates.gauge(NOW + 2000, 5);
  assert.deepEqual(rates.series(NOW + 4000).closeWait, [3, 3, 5, 5]);
});

test("gaps are unknown", () => {
  const rates = new Rates(4);
  rates.gauge(NOW, 3);
  rates.open(NOW + 1000);
  rates.gap(NOW + 1000);
  assert.deepEqual(rates.series(NOW + 4000), {
    opens: [0, null, 0, 0], closes: [0, null, 0, 0], closeWait: [3, null, 3, 3],
  });
});

test("averages leave out what is unknown", () => {
  assert.equal(average([100, 2, null, 4], 3), 3);
  assert.equal(average([null], 3), null);
});
