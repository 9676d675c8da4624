"""Real browsers without a window: what a page asks for, what it says on its console, what its scripts find.

Chromium is spoken to over a pipe by its DevTools protocol, Firefox over a socket by Marionette.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"),
)


class Chromium:
    """A page in Chromium. `requests` are the addresses that it asked for, `complaints` what its console says."""

    NAMES = ("chromium", "chromium-browser", "google-chrome")

    def __init__(self, program: str, folder: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The protocol's pipes are descriptors 3 and 4, wherever those made here are.
        command = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, program, *_QUIET, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._id, self._session = b"", 0, {}
        self._waiting: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.complaints: list[str] = []
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Load a page and wait until all of it is there."""
        self.requests.clear()
        self.complaints.clear()
        self._waiting.clear()
        self._call("Page.navigate", url=address)
        self._until("Page.loadEventFired")

    def run(self, script: str) -> Any:
        """What an expression gives."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def window(self, width: int, height: int = 800, dark: bool = False) -> None:
        """Be as wide as that, and as a reader has it who prefers light, or dark."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=scheme)
        view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **view)

    def picture(self) -> bytes:
        """What the window shows, as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                return answer["result"]
            self._waiting.append(answer)

    def _until(self, event: str) -> None:
        while not any(one.get("method") == event for one in self._waiting):
            self._waiting.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, what: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent" and not what["request"]["url"].startswith("data:"):
            self.requests.append(what["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(what["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(what["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(what["entry"]["text"])


class Firefox:
    """A page in Firefox; see `Chromium`."""

    NAMES = ("firefox", "firefox-esr")

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quiet = {"marionette.port": port, "browser.shell.checkDefaultBrowser": False}
        quiet |= {"datareporting.policy.dataSubmissionEnabled": False, "app.update.auto": False}
        lines = [f'user_pref("{name}", {json.dumps(value)});' for name, value in quiet.items()]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "user.js").write_text("\n".join(lines))
        command = [program, "--headless", "--no-remote", "--profile", str(folder), "--marionette"]
        command += ["--remote-allow-system-access"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._socket = self._connected(port)
        self._buffer, self._id = b"", 0
        self._receive()
        self._call("WebDriver:NewSession")
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, address: str) -> None:
        self._privileged("Services.console.reset();")
        self._call("WebDriver:Navigate", url=address)
        self.requests = self.run("performance.getEntriesByType('resource').map((one) => one.name)")
        # Of the page alone: the browser has worries of its own.
        said = self._privileged(
            "return Services.console.getMessageArray().filter((one) => one instanceof Ci.nsIScriptError"
            " && one.sourceName.startsWith(arguments[0])).map((one) => one.errorMessage);",
            address,
        )
        self.complaints = said

    def run(self, script: str) -> Any:
        return self._call("WebDriver:ExecuteScript", script=f"return {script};", args=[])["value"]

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()

    def _connected(self, port: int) -> socket.socket:
        """It says by nothing but an open port that it listens."""
        while self._process.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=300)
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise AssertionError("the browser has gone")

    def _privileged(self, script: str, *arguments: str) -> Any:
        self._call("Marionette:SetContext", value="chrome")
        found = self._call("WebDriver:ExecuteScript", script=script, args=list(arguments))["value"]
        self._call("Marionette:SetContext", value="content")
        return found

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._id += 1
        text = json.dumps([0, self._id, method, parameters])
        self._socket.sendall(f"{len(text)}:{text}".encode())
        _, _, error, result = self._receive()
        assert error is None, error
        return result or {}

    def _receive(self) -> Any:
        while b":" not in self._buffer:
            self._more()
        size, _, self._buffer = self._buffer.partition(b":")
        while len(self._buffer) < int(size):
            self._more()
        text, self._buffer = self._buffer[: int(size)], self._buffer[int(size) :]
        return json.loads(text)

    def _more(self) -> None:
        part = self._socket.recv(1 << 20)
        assert part, "the browser has gone"
        self._buffer += part


def program_of(kind: type[Chromium] | type[Firefox]) -> str | None:
    """Where a browser is installed; None where it is not."""
    return next(filter(None, map(shutil.which, kind.NAMES)), None)
