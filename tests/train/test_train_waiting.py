"""Who lives is waited for, however long it takes; who is gone is missed, although no connection was closed."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import run, trained, world_of

from longwave.distributed.mesh import told
from longwave.errors import RankError
from longwave.train import checkpoint, loop, pulse, record, state
from longwave.train.pulse import Pulse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")

PATIENCE_S = 2.0
BEAT_S = 0.1


def _late(act: Callable[..., Any]) -> Callable[..., Any]:
    """The same, for longer than any collective waits."""

    def slow(*given: Any, **options: Any) -> Any:
        time.sleep(2 * PATIENCE_S)
        return act(*given, **options)

    return slow


def _slow(rank: int, folder: Path, genome: str, what: str) -> None:
    if rank == 0 or what == "shards":
        where: dict[str, tuple[Any, str]] = {
            "weights": (checkpoint, "save_weights"),
            "picture": (loop, "draw"),
            "metrics": (record.Metrics, "append"),
            "shards": (state.dcp.FileSystemWriter, "write_data"),
        }
        owner, name = where[what]
        if what != "shards" or rank == 1:
            setattr(owner, name, _late(getattr(owner, name)))
    few = {"steps": 2, "eval_every": 2, "checkpoint_every": 1}
    trained(world_of(rank, 1, 1, 2, timeout_s=PATIENCE_S), genome, folder / "run", **few)


@pytest.mark.parametrize(
    "what", ["weights", *(pytest.param(n, marks=pytest.mark.slow) for n in ("picture", "metrics", "shards"))]
)
def test_a_slow_process_that_lives_is_waited_for(tmp_path: Path, genome_file: Path, what: str) -> None:
    run(2, tmp_path, _slow, str(genome_file), what, timeout_s=PATIENCE_S)
    assert checkpoint.steps_in(tmp_path / "run") == [2]


def _gone(rank: int, folder: Path, how: str) -> None:
    """Rank 1, or all but it, is stopped while the others wait for it."""
    store = dist.distributed_c10d._get_default_store()
    stderr = (folder / f"stderr-{rank}").open("w", buffering=1)
    sys.stderr = stderr
    with Pulse(store, rank, dist.get_world_size(), beat_s=BEAT_S) as beats:
        (folder / f"pid-{rank}").write_text(str(os.getpid()))
        beats.together()
        if rank == int(how == "rank 1"):
            time.sleep(5 * BEAT_S)
            os.kill(os.getpid(), signal.SIGSTOP)
        elif rank == 2 and how == "in a collective":
            with told("adding up"):  # rank 1 may end, and close its connection, before this one has missed rank 0
                dist.all_reduce(torch.zeros(1))
        beats.together()
    raise AssertionError("nobody was missed")


@pytest.mark.parametrize("how", ["rank 0", "rank 1", "in a collective"])
def test_a_process_that_is_stopped_ends_the_others(tmp_path: Path, how: str) -> None:
    began = time.monotonic()
    with pytest.raises(AssertionError):
        run(3, tmp_path, _gone, how, timeout_s=600, stopped=int(how == "rank 1"))
    assert time.monotonic() - began < 120
    for path in tmp_path.glob("said-*"):  # who hears of it from another one says nothing more
        assert "RankError: another rank has ended" in path.read_text()
    said = "".join(path.read_text() for path in tmp_path.glob("stderr-*"))
    assert re.fullmatch(rf"longwave train: rank {int(how == 'rank 1')} has not answered for 1 seconds: .*--resume\n", said)


def _met(rank: int, folder: Path) -> None:
    """Late by more beats than may be missed, and ended before the others: neither is a failure."""
    store = dist.distributed_c10d._get_default_store()
    with Pulse(store, rank, dist.get_world_size(), beat_s=BEAT_S) as beats:
        if rank == 0:
            time.sleep(3 * pulse.MOST_MISSED * BEAT_S)
        beats.together()
        if rank == 1:
            time.sleep(3 * pulse.MOST_MISSED * BEAT_S)


def test_who_beats_is_not_missed(tmp_path: Path) -> None:
    run(2, tmp_path, _met, timeout_s=1)


def test_who_waits_hears_of_a_failure() -> None:
    store = dist.HashStore()
    store.add(pulse.FAILED, 1)
    with pytest.raises(RankError, match="another rank has ended"):
        Pulse(store, 0, 2).together()
