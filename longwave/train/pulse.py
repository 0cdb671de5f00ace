"""That the other processes live, seen in the store by which all of them found each other: to wait for who lives is no failure.

A collective gives up after its time, whatever the other process is doing; what some processes alone do may take longer, and is
waited for in the store. A process that is stopped, or whose machine is gone, closes no connection: it is missed by its beats,
and who waits for it ends, in a collective or not.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, cast

import torch.distributed as dist

from longwave.distributed.mesh import rank_lost

# Seconds between beats, and how many of them may be missed: a minute has room for this and for the half of it that a launcher
# gives its other processes.
BEAT_S = 2.0
MOST_MISSED = 10
# Keys of the store, and what stands in the place of a beat when a process has come to its end.
BEAT, MET, FAILED = "longwave/beat", "longwave/met", "longwave/failed"
ENDED = "ended"
# What to do where one process of a run is lost.
AGAIN = "start all of them again with --resume"
STORE = "the store by which the ranks found each other"
# The status of a process that ends so, and how long it may take to say why.
STATUS, LAST_WORDS_S = 2, 5.0
_FIRST_NAP_S, _LONGEST_NAP_S = 0.001, 0.05


class Pulse:
    """Beats while it is entered, and ends this process where one that it listens to has fallen silent.

    The first process listens to all others, and they to it: what is asked of the store grows with their number, not its square.
    Missed beats are counted in this process's own time, so that one that was stopped with all the others finds none missing.

    Args:
        store: by which the processes found each other.
        rank, size: of this process, and of all.
        beat_s: between two beats.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, *, beat_s: float = BEAT_S) -> None:
        self.store, self.rank, self.size, self.beat_s = store, rank, size, beat_s
        self._met: Counter[str] = Counter()
        self._listened = range(1, size) if rank == 0 else range(1)
        # The last that was heard of whom; written by one thread and read by another.
        self._heard: dict[str, str] = {}
        self._left, self._well = threading.Event(), False
        # Connections of their own, for another one may be held by whoever waits for a key.
        self._threads = [
            threading.Thread(target=work, args=(cast(Any, store).clone(),), name="pulse", daemon=True)
            for work in (self._beat, self._listen)
        ]

    def __enter__(self) -> Pulse:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._well = kind is None
        self._left.set()
        for thread in self._threads:
            thread.join(LAST_WORDS_S)

    def together(self, what: str = "") -> None:
        """Wait until every process is here, as long as it takes; `what` tells threads apart.

        Raises:
            RankError: one of them has failed.
        """
        key = f"{MET}/{what}"
        self._met[what] += 1
        nap, here = _FIRST_NAP_S, self.store.add(key, 1)
        while here < self._met[what] * self.size:
            if self.store.check([FAILED]):
                raise rank_lost(AGAIN)
            time.sleep(nap)
            nap, here = min(2 * nap, _LONGEST_NAP_S), self.store.add(key, 0)

    def _beat(self, store: dist.Store) -> None:
        """Speak and hear until the end. It is held up by a store that does not answer, which `_listen` notices."""
        own, names = f"{BEAT}/{self.rank}", {f"rank {rank}": f"{BEAT}/{rank}" for rank in self._listened}
        number, keys = 0, list(names.values())
        try:
            while not self._left.wait(self.beat_s if number else 0):
                number += 1
                store.set(own, str(number))
                beats = [beat.decode() for beat in store.multi_get(keys)] if store.check(keys) else []
                known = {STORE: str(number), FAILED: "so" if store.check([FAILED]) else ENDED}
                self._heard = {**dict(zip(names, beats, strict=False)), **known}
            if self._well:
                store.set(own, ENDED)
        except RuntimeError:  # the store is gone, and with it the process that kept it
            return

    def _listen(self, store: dist.Store) -> None:
        missed: Counter[str] = Counter()
        before: dict[str, str] = {}
        while not self._left.wait(self.beat_s):
            heard = self._heard
            for who, beat in heard.items():
                missed[who] = 0 if beat == ENDED or beat != before.get(who) else missed[who] + 1
            before = heard
            if silent := [who for who in heard if missed[who] > MOST_MISSED]:
                self._end(store, silent)

    def _end(self, store: dist.Store, silent: list[str]) -> None:
        """Say it, where no other process has, and end: whatever the other threads wait for does not come."""
        if STORE in silent:
            who, speaks = STORE, os.environ.get("LOCAL_RANK", "0") == "0"
        else:
            overdue = threading.Timer(LAST_WORDS_S, os._exit, (STATUS,))
            overdue.daemon = True
            overdue.start()
            who, speaks = silent[0], store.add(FAILED, 1) == 1
        if speaks:
            sys.stderr.write(
                f"longwave train: {who} has not answered for {MOST_MISSED * self.beat_s:g} seconds: it was stopped, or its "
                "machine is gone; start all ranks again with --resume\n"
            )
            sys.stderr.flush()
        os._exit(STATUS)
