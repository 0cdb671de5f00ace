"""How far training has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from longwave.train.optional import need

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Score, speed and time left of a run of `steps` steps that begins after `start` of them; written to stderr.

    Args:
        steps, start: as above.
        positions_a_step: of `unit`s.
        unit: what a position is: "base".
        label: of the score: "bits per base".
        seconds: that the steps before `start` took.
        shown: whether this process is the one that speaks.
    """

    def __init__(
        self,
        steps: int,
        start: int,
        positions_a_step: int,
        *,
        unit: str,
        label: str,
        seconds: float = 0.0,
        shown: bool = True,
    ) -> None:
        self.steps, self.start, self.positions_a_step, self.shown = steps, start, positions_a_step, shown
        self.unit, self.label, self._seconds_before = unit, label, seconds
        self._began = self._written = time.perf_counter()
        self._seconds_idle = 0.0
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            layout = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix} [{elapsed}<{remaining}]"
            self._bar = need("tqdm").tqdm(total=steps, initial=start, desc="training", bar_format=layout, dynamic_ncols=True)

    def exclude(self, seconds: float) -> None:
        """Leave `seconds`, spent on validation or saving, out of the speed."""
        self._seconds_idle += seconds

    @property
    def seconds(self) -> float:
        """Training alone, from the start of the run until now."""
        return self._seconds_before + self._seconds_here

    @property
    def _seconds_here(self) -> float:
        return time.perf_counter() - self._began - self._seconds_idle

    def per_second(self, step: int) -> float:
        """Positions a second from the start of this process to the end of `step`."""
        return (step - self.start) * self.positions_a_step / max(self._seconds_here, 1e-9)

    def update(self, step: int, score: float) -> None:
        """Show that `step` (1 is the first) is done."""
        speed = self.per_second(step)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{score:.4f} {self.label}, {speed:,.0f} {self.unit}s/s", refresh=False)
            self._bar.update(1)
            return
        now = time.perf_counter()
        if step in (self.start + 1, self.steps) or now - self._written >= SECONDS_BETWEEN_LINES:
            self._written = now
            left = (self.steps - step) * self.positions_a_step / speed
            self.say(
                f"step {step:,}/{self.steps:,}: {score:.4f} {self.label}, {speed:,.0f} {self.unit}s/s, "
                f"{int(left) // 60}:{int(left) % 60:02d} left"
            )

    def say(self, line: str) -> None:
        """Write a line without breaking the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
