"""Debian's Chromium without a screen, spoken to through pipes in the DevTools protocol: no driver, no dependency."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
REASON = "no Chromium is installed; on Debian: apt-get install chromium"
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


def program() -> str | None:
    """The program; None: it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A page in a running browser.

    Attributes:
      events: of the protocol, since the browser started.
    """

    def __init__(self, out: int, into: int):
        self._out, self._into, self._rest, self._number = out, into, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, file: Path, *, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        """Opens a file, and waits until it and its pictures are there."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.events.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()
        self.value("Promise.all([...document.images].map(image => image.decode())).then(() => true)")

    def value(self, expression: str) -> Any:
        """The value of an expression in JavaScript, as JSON has it; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as a PNG file."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])

    def complaints(self) -> list[str]:
        """What the console shows of errors and warnings since `open`."""
        found = []
        for event in self.events:
            match event:
                case {"method": "Runtime.exceptionThrown"}:
                    found.append(json.dumps(event["params"]))
                case {"method": "Runtime.consoleAPICalled", "params": {"type": "error" | "warning"}}:
                    found.append(json.dumps(event["params"]))
                case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                    found.append(entry["text"])
        return found

    def requests(self) -> list[str]:
        """The addresses asked for since `open`, apart from data inside the page."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [url for event in sent if not (url := event["params"]["request"]["url"]).startswith("data:")]

    def _read(self) -> dict[str, Any]:
        """The next message; an event is kept."""
        while b"\0" not in self._rest:
            part = os.read(self._into, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(message)
        if "method" in found:
            self.events.append(found)
        return found


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser that is at work until the block ends.

    Args:
      profile: an empty folder.
    """
    name = program()
    assert name is not None, REASON
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", command, name, *QUIET, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours_out)
        os.close(ours_in)
