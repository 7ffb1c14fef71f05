"""The app in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
GATED = Path(__file__).parent / "gated_app.py"


class Server:
    """The app in a process of its own, on any free port.

    Args:
        cache: its store.
        gated: its runs can be held halfway, and its log says what it reaches for beyond this
            machine; else it is what `make app` starts.
    """

    def __init__(self, cache: Path, *, gated: bool = False) -> None:
        self._gate = cache.parent / "frames"
        self.temporary = cache.parent / "temporary"
        self.temporary.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "EMERGE3D_CACHE": str(cache),
            "EMERGE3D_GATE": str(self._gate),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop(
            "PYTHONDONTWRITEBYTECODE", None
        )  # a second start reads what the first compiled
        command = [str(GATED)] if gated else ["-m", "app"]
        begun = time.monotonic()
        self._log = (cache.parent / "server.log").open("a+b")
        self._process = subprocess.Popen(
            [sys.executable, *command, "--port", "0"],
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

    @property
    def process(self) -> psutil.Process:
        """The server's."""
        return psutil.Process(self._process.pid)

    @contextmanager
    def holding(self, frames: int) -> Iterator[None]:
        """Inside, runs of a gated server wait before every predicted frame after so many."""
        waiting = self._gate.with_suffix(".new")
        waiting.write_text(str(frames))
        waiting.replace(self._gate)
        try:
            yield
        finally:
            self._gate.unlink()

    def _first_page(self, begun: float) -> float:
        with urlopen(self.url, timeout=60) as answer:
            assert answer.status == 200
            assert b"Emerge3D" in answer.read()
        return time.monotonic() - begun - self._kept_waiting()

    def _kept_waiting(self) -> float:
        """Seconds for which other processes had the cores that it could have used (Linux alone)."""
        try:
            told = Path(f"/proc/{self._process.pid}/schedstat").read_text().split()
        except FileNotFoundError:
            return 0.0
        return int(told[1]) / 1e9

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
