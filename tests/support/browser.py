"""Headless Chromium for tests, driven by the W3C protocol that `chromedriver` speaks; nothing to install for it."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of an element's id
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def why_not() -> str | None:
    """Why there is no browser here; None if there is one."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} here: apt-get install chromium chromium-driver" if missing else None


class Browser:
    """One window.

    Args:
        session: the address of the driver's session.
    """

    def __init__(self, session: str) -> None:
        self.session = session

    def call(self, path: str, values: dict[str, Any] | None = None) -> Any:
        """A command of the protocol: GET without values, else POST."""
        return _request(f"{self.session}/{path}", values)

    def find(self, css: str) -> str:
        """The first element that a selector matches."""
        return self.call("element", {"using": "css selector", "value": css})[ELEMENT]

    def type(self, css: str, keys: str) -> None:
        """Sends keys, or a file's path, to an element."""
        self.call(f"element/{self.find(css)}/value", {"text": keys})

    def press(self, key: str) -> None:
        """Presses a key in whatever has the focus."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.call("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def run(self, script: str) -> Any:
        """Runs a script; its return value."""
        return self.call("execute/sync", {"script": script, "args": []})

    def text(self, css: str) -> str:
        """The visible text of the first element that a selector matches; empty if there is none."""
        return self.run(f"return document.querySelector({json.dumps(css)})?.innerText ?? ''")

    def resize(self, width: int, height: int) -> None:
        """Gives the page the size of a device, however small."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def screenshot(self, path: Path) -> None:
        """Writes the full page as PNG."""
        params = {"format": "png", "captureBeyondViewport": True}
        shot = self.call("goog/cdp/execute", {"cmd": "Page.captureScreenshot", "params": params})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A new browser with its own profile.

    Args:
        folder: for the profile.
    """
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(driver.stdout.readline, "")
        port = next(found[1] for line in lines if (found := re.search(r"started successfully on port (\d+)", line)))
        chrome = {"args": [*OPTIONS, f"--user-data-dir={folder}"]}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": chrome}}}
        driver_address = f"http://127.0.0.1:{port}/session"
        session = _request(driver_address, wanted)["sessionId"]
        try:
            yield Browser(f"{driver_address}/{session}")
        finally:
            end = urllib.request.Request(f"{driver_address}/{session}", method="DELETE")
            urllib.request.urlopen(end, timeout=30)
    finally:
        driver.terminate()
        driver.wait()


def wait_until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits until a function returns something true, and returns that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("waited too long")


def _request(address: str, values: dict[str, Any] | None) -> Any:
    data = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from error
