"""The app in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import urlopen

REPOSITORY = Path(__file__).resolve().parents[2]


class Server:
    """The app in a process of its own, as `make app` starts it."""

    def __init__(self, cache: Path) -> None:
        environment = {**os.environ, "EMERGE3D_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
        begun = time.monotonic()
        self._log = (cache.parent / "server.log").open("a+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app", "--port", "0"],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        self.printed: list[str] = []
        line = self._process.stdout.readline()
        while line and "Emerge3D is at" not in line:
            self.printed.append(line)
            line = self._process.stdout.readline()
        assert line, f"the server did not start: {self.log()}"
        self.url = line.split()[-1]
        self.printed.append(line)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.seconds_to_serve = self._first_page(begun)

    def _first_page(self, begun: float) -> float:
        with urlopen(self.url, timeout=60) as answer:
            assert answer.status == 200
            assert b"Emerge3D" in answer.read()
        return time.monotonic() - begun

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.printed.extend(self._process.stdout)

    def log(self) -> str:
        """What the server wrote so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
