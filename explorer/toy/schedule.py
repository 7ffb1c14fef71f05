"""A training clock: learning rate and end of a run by time spent, so that a run fits its budget."""

from __future__ import annotations

import math
import time

from explorer.toy.parallel import Worker, same_everywhere


class Clock:
    """Warm-up by steps, then the peak, then a cosine to the floor in the last `decay` of the run.

    How far a run is follows from the fraction of the time budget used. A run that another one goes
    on from keeps the peak (`decay` 0): what a decay brings is lost when the next run warms up
    again, and a run whose rate falls only at its end is as good as one whose rate falls all along
    (Hägele et al. 2024). Warm-up also re-warms Adam after a resume, whose moments are not stored.
    With `steps` the run ends after that many if the time has not ended it before, so that two runs
    can be equally long.
    """

    def __init__(
        self,
        seconds: float,
        *,
        peak: float,
        floor: float,
        warmup: int,
        worker: Worker,
        steps: int | None = None,
        decay: float = 1.0,
    ) -> None:
        self._start = time.monotonic()
        self._steps, self._spent = steps, 0.0
        self._seconds, self._peak, self._floor, self._warmup = seconds, peak, floor, warmup
        self._worker, self._decay = worker, decay
        self.step = 0
        self.progress = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def rate(self) -> float:
        """The learning rate of the coming step."""
        if self.step < self._warmup:
            return self._peak * (self.step + 1) / self._warmup
        into = min(self.progress, 1.0) - (1.0 - self._decay)
        if into <= 0:
            return self._peak
        fallen = into / self._decay
        share = 0.5 * (1 + math.cos(math.pi * fallen))
        return self._floor + (self._peak - self._floor) * share

    def advance(self) -> bool:
        """Count a step; False once the time is used up, for all peers at the same step."""
        self.step += 1
        if self.step % 10 == 0 or self._worker.count == 1:  # peers talk only now and then
            self._spent = same_everywhere(self.elapsed / self._seconds, self._worker)
        self.progress = max(self._spent, self.step / self._steps if self._steps else 0.0)
        return self.progress < 1.0


class Every:
    """True once in a number of seconds: when to save while training goes on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the time has come; the next one is then that much later."""
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True
