// Measures a page from within: loaded before its scripts by bench/page.py.
(() => {
  const probe = { opened: null, firstRows: null, allRows: null, tasks: [], frames: [] };
  window.probe = probe;
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    /** @param {ConstructorParameters<typeof Native>} settings */
    constructor(...settings) {
      super(...settings);
      this.addEventListener("open", () => (probe.opened ??= performance.now()));
    }
  };
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) probe.tasks.push([task.startTime, task.duration]);
  }).observe({ type: "longtask", buffered: true });
  const frame = (now) => {
    probe.frames.push(now);
    if (probe.firstRows === null && document.querySelector("[role=gridcell]")?.textContent) {
      probe.firstRows = now;
    }
    if (probe.allRows === null && probe.expected) {
      const rows = document.querySelector("[role=grid]")?.getAttribute("aria-rowcount") ?? 0;
      if (Number(rows) > probe.expected) probe.allRows = now;
    }
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  // Forget what was measured so far.
  probe.restart = () => {
    probe.tasks = [];
    probe.frames = [];
  };
  // What was measured since: frames a second, the longest frame and task, and long tasks, in ms.
  probe.measured = () => {
    const { frames, tasks } = probe;
    const gaps = frames.slice(1).map((time, index) => time - frames[index]);
    const seconds = (frames[frames.length - 1] - frames[0]) / 1000;
    return {
      frames_per_second: gaps.length / seconds,
      longest_frame: Math.max(0, ...gaps),
      long_tasks: tasks.length,
      longest_task: Math.max(0, ...tasks.map(([, duration]) => duration)),
    };
  };
})();
