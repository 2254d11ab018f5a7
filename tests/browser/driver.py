"""Headless Chromium over the WebDriver protocol, with what it wrote to its console and asked of the network."""

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

TIMEOUT_S = 90.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
T = TypeVar("T")


class Browser:
    """One window."""

    def __init__(self, url: str, session: str) -> None:
        self._url = f"{url}/session/{session}"
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def call(self, method: str, path: str, **body: Any) -> Any:
        content = json.dumps(body).encode() if method == "POST" else None
        found = self._http.request(method, f"{self._url}{path}", content=content)
        value = found.json()["value"]
        assert found.status_code == 200, value
        return value

    def close(self) -> None:
        self.call("DELETE", "")
        self._http.close()

    def open(self, url: str) -> None:
        self.call("POST", "/url", url=url)

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("POST", "/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=metrics)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("POST", "/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("POST", "/execute/sync", script=script, args=list(arguments))

    def find(self, selector: str) -> str:
        return str(self.call("POST", "/element", using="css selector", value=selector)[ELEMENT])

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/value", text=text)

    def text(self, selector: str) -> str:
        return str(
            self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent).join('|')", selector)
        )

    def wait(self, condition: Callable[[], T]) -> T:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert time.monotonic() < deadline_s, self.run("return document.body.innerText")
            time.sleep(0.05)
        return found

    def wait_idle(self) -> None:
        self.wait(lambda: self.run("return document.getElementById('stop').classList.contains('hidden')"))

    def save_screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def read_log(self, kind: str) -> list[dict[str, Any]]:
        return list(self.call("POST", "/se/log", type=kind))

    def requested_urls(self) -> set[str]:
        """What was asked for since this was called last, but for the browser's own pages, such as that of a new tab."""
        messages = [json.loads(entry["message"])["message"] for entry in self.read_log("performance")]
        urls = {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }
        return {url for url in urls if not url.startswith(("chrome://", "chrome-untrusted://"))}


@contextmanager
def browsing(chromium: str, chromedriver: str, profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, which asks nothing of the network by itself."""
    switches = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
        "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
    ]  # fmt: skip
    options = {
        "goog:chromeOptions": {"binary": chromium, "args": switches},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    with subprocess.Popen([chromedriver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = next(match[1] for line in process.stdout if (match := re.search(r"on port (\d+)\.", line)))
            url = f"http://127.0.0.1:{port}"
            body = {"capabilities": {"alwaysMatch": options}}
            session = httpx.post(f"{url}/session", json=body, timeout=TIMEOUT_S, trust_env=False).json()["value"]
            browser = Browser(url, session["sessionId"])
            yield browser
            browser.close()
        finally:
            process.kill()


def shoot(browser: Browser, name: str) -> None:
    folder = os.environ.get("SCREENSHOTS")  # for people to look at
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(Path(folder) / f"{name}.png")
