"""Chromium without a window, driven over its debugging protocol."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from .devtools import (
    CTRL,
    KEYS,
    REPLY_SECONDS,
    Accessible,
    BrowserError,
    Request,
    Session,
    Values,
    exception_text,
)

# A browser starts slowly on a loaded machine.
START_SECONDS = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_DIES_WITH_ITS_PARENT = ("setpriv", "--pdeathsig", "KILL")  # From util-linux.
_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--disable-gpu",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage", "--disable-quic",
    # A tab that is not in front keeps its timers and its frames.
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    # Tests use this name as that of a foreign site, and of one that is bound to another address.
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
    "--disable-features=LocalNetworkAccessChecks,HttpsUpgrades",
)  # fmt: skip
# Reports violations of the policy from a world of its own, which the page does not see.
_WORLD = "sockagent-tests"
_REPORT_VIOLATIONS = """
    document.addEventListener("securitypolicyviolation", (event) => reportViolation(
        `${event.effectiveDirective}: ${event.blockedURI} ${event.sourceFile}`));
"""
# On a loaded machine the browser may take a drop from the page, and open the file in a new tab.
MAX_DROPS = 5
_AWAIT_DROP = """
    window.dropped = new Promise((done) => addEventListener("drop", () => done(true), true));
    window.left = new Promise((done) => addEventListener("dragleave", () => done(false), true));
    0
"""


class Tab:
    """A page in a profile of its own, and what it reported: console, errors, requests.

    ``violations`` are those of the Content-Security-Policy. Events are taken while a method is
    called; ``take_events`` takes those that arrived since.
    """

    def __init__(self, url: str, context: str) -> None:
        self._context = context  # The id of the profile.
        self.console: list[str] = []
        self.errors: list[str] = []  # Exceptions, and errors on the console.
        self.log: list[str] = []  # What the browser itself reports, such as failed requests.
        self.violations: list[str] = []
        self.requests: list[Request] = []
        self.sockets: list[str] = []  # URLs of WebSockets.
        self._loaded: set[str] = set()
        self._session = Session(url, self._on_event)
        self.call = self._session.call
        self.take_events = self._session.take_events
        self.close = self._session.close
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.call("Runtime.addBinding", name="reportViolation", executionContextName=_WORLD)
        self.call(
            "Page.addScriptToEvaluateOnNewDocument", source=_REPORT_VIOLATIONS, worldName=_WORLD
        )

    def _on_event(self, method: str, values: Values) -> None:
        match method:
            case "Runtime.consoleAPICalled":
                text = " ".join(str(one.get("value", one.get("description", "")))
                                for one in values["args"])  # fmt: skip
                self.console.append(f"{values['type']}: {text}")
                if values["type"] in ("error", "assert"):
                    self.errors.append(text)
            case "Runtime.exceptionThrown":
                self.errors.append(exception_text(values["exceptionDetails"]))
            case "Log.entryAdded":
                entry = values["entry"]
                self.log.append(f"{entry['source']} {entry['level']}: {entry['text']} "
                                f"{entry.get('url', '')}")  # fmt: skip
            case "Runtime.bindingCalled":
                self.violations.append(values["payload"])
            case "Network.requestWillBeSent":
                request = values["request"]
                self.requests.append(Request(request["method"], request["url"], request["headers"]))
            case "Network.webSocketCreated":
                self.sockets.append(values["url"])
            case "Page.lifecycleEvent" if values["name"] == "load":
                self._loaded.add(values["loaderId"])
            case "Page.javascriptDialogOpening":
                self.errors.append(f"dialog: {values['message']}")

    def navigate(self, url: str) -> None:
        """Go to a URL; return when its document was loaded. Raise BrowserError if it cannot be."""
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")
        if "loaderId" in answer:  # Not where only the part after "#" differs.
            self._wait_for_load(lambda: answer["loaderId"])

    def reload(self) -> None:
        """Load the document again."""
        before = self._loader()
        self.call("Page.reload")
        self._wait_for_load(lambda: self._loader().replace(before, ""))

    def _loader(self) -> str:
        return str(self.call("Page.getFrameTree")["frameTree"]["frame"]["loaderId"])

    def _wait_for_load(self, loader: Callable[[], str]) -> None:
        end = time.monotonic() + START_SECONDS
        while loader() not in self._loaded:
            if time.monotonic() > end:
                raise BrowserError("the document is not loaded")
            self.take_events(0.02)

    def evaluate(self, expression: str, seconds: float = REPLY_SECONDS) -> Any:
        """Return the value of an expression, or what its promise gives."""
        answer = self.call(
            "Runtime.evaluate", seconds, expression=expression, awaitPromise=True,
            returnByValue=True, userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in answer:
            raise BrowserError(f"{exception_text(answer['exceptionDetails'])}\nin {expression}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = START_SECONDS) -> Any:
        """Evaluate an expression until its value is true; return that value."""
        end = time.monotonic() + seconds
        while True:
            try:
                value = self.evaluate(expression)
            except BrowserError as error:  # A navigation destroys what evaluates it.
                value, failure = None, str(error)
            else:
                failure = f"the last value was {value!r}"
            if value:
                return value
            if time.monotonic() > end:
                raise BrowserError(f"never true: {expression}; {failure}; {self.errors}")
            time.sleep(0.05)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key: a character, or a name such as ArrowDown."""
        code, text = KEYS.get(key, (ord(key[0].upper()) if key.isalnum() else 0, key))
        typed = {} if not text or modifiers & CTRL else {"text": text}
        for kind in ("keyDown" if typed else "rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                modifiers=modifiers, **(typed if kind == "keyDown" else {}),
            )  # fmt: skip

    def type(self, text: str) -> None:
        """Press the keys of a text, one after the other."""
        for character in text:
            self.press(character)

    def insert(self, text: str) -> None:
        """Insert a text where the focus is, as pasting does."""
        self.call("Input.insertText", text=text)

    def click(self, name: str, role: str | None = None) -> None:
        """Click the middle of the first element with this accessible name."""
        node = self.find(name, role)
        assert node, f"no {role or 'element'} named {name!r}: {self.names()}"
        self.call("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
        quads = self.call("DOM.getContentQuads", backendNodeId=node)["quads"]
        assert quads, f"{name!r} is not visible"
        x, y = sum(quads[0][::2]) / 4, sum(quads[0][1::2]) / 4
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drop(self, *paths: Path) -> None:
        """Drop files on the middle of the page."""
        x, y = self.evaluate("[innerWidth / 2, innerHeight / 2]")
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for _ in range(MAX_DROPS):
            self.evaluate(_AWAIT_DROP)
            # A drop counts only where the page has answered to what is dragged over it.
            for kind in ("dragEnter", "dragOver", "dragOver"):
                self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)
                self.evaluate("new Promise((done) => requestAnimationFrame(done))")
            self.call("Input.dispatchDragEvent", type="drop", x=x, y=y, data=data)
            if self.evaluate("Promise.race([dropped, left])"):
                return
            self.call("Page.bringToFront")
        raise BrowserError("the browser opened what was dropped on the page")

    def find(self, name: str, role: str | None = None) -> int | None:
        """Return the backend id of the first element with this accessible name."""
        for node in self.accessible():
            if node.name == name and role in (None, node.role):
                return node.backend
        return None

    def accessible(self) -> list[Accessible]:
        """Return the accessibility tree, without what it ignores."""
        return [
            Accessible(
                node["role"]["value"], node.get("name", {}).get("value", ""),
                {one["name"]: one["value"].get("value") for one in node.get("properties", ())},
                node.get("backendDOMNodeId", 0),
            )
            for node in self.call("Accessibility.getFullAXTree")["nodes"]
            if not node["ignored"]
        ]  # fmt: skip

    def names(self) -> list[tuple[str, str]]:
        """Return role and name of all accessible elements that can have the focus."""
        return [
            (one.role, one.name) for one in self.accessible() if one.properties.get("focusable")
        ]

    def focused(self) -> Accessible | None:
        """Return the innermost element that has the focus."""
        found = [one for one in self.accessible() if one.properties.get("focused")]
        return found[-1] if found else None

    def set_view(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the page, and the colour scheme that its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """Write a picture of the page as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def save_to(self, directory: Path) -> None:
        """Save downloads in this directory."""
        self.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(directory),
            browserContextId=self._context,
        )  # fmt: skip

    def heap(self) -> int:
        """Return the bytes of the JavaScript heap that a garbage collection leaves."""
        self.call("HeapProfiler.collectGarbage")
        return int(self.call("Runtime.getHeapUsage")["usedSize"])


def find_browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """A running browser; ``tab`` opens pages."""

    def __init__(self, *arguments: str, wrapper: Sequence[str] = ()) -> None:
        """``arguments`` are those of the browser; ``wrapper`` is a command that runs it."""
        program = find_browser()
        if program is None:
            raise BrowserError("chromium is not installed")
        self._directory = tempfile.TemporaryDirectory(
            prefix="sockagent-browser-", ignore_cleanup_errors=True
        )
        profile = Path(self._directory.name)
        # In a session of its own, so that its processes end together.
        self.process = subprocess.Popen(
            [*wrapper, *_DIES_WITH_ITS_PARENT, program, *_ARGUMENTS, f"--user-data-dir={profile}",
             *arguments, "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            port, path = self._wait_for_port(profile / "DevToolsActivePort")
            self._address = f"ws://127.0.0.1:{port}"
            self._session = Session(f"{self._address}{path}", lambda _method, _values: None)
        except BaseException:
            self.close()
            raise

    def _wait_for_port(self, path: Path) -> Sequence[str]:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise BrowserError(f"chromium ended with status {self.process.returncode}")
            if path.exists() and len(lines := path.read_text().splitlines()) == 2:
                return lines
            time.sleep(0.02)
        raise BrowserError("chromium does not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._session.close()
        self.close()

    def close(self) -> None:
        """Kill the browser with all its processes, and delete its profile."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        end = time.monotonic() + START_SECONDS
        with suppress(ProcessLookupError):
            while time.monotonic() < end:
                os.killpg(self.process.pid, 0)
                time.sleep(0.01)
        self._directory.cleanup()

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """Open a tab in a profile without cookies, storage and cache; close it in the end."""
        context = self._session.call("Target.createBrowserContext")["browserContextId"]
        target = self._session.call(
            "Target.createTarget", url="about:blank", browserContextId=context
        )["targetId"]
        tab = Tab(f"{self._address}/devtools/page/{target}", context)
        try:
            yield tab
        finally:
            tab.close()
            self._session.call("Target.disposeBrowserContext", browserContextId=context)
