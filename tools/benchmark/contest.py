"""Times several programs in turn on the same input, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Protocol

from benchmark.process import Process, WorkerError
from benchmark.results import Contest

#: A run that takes longer than this is not preceded by an untimed one in every turn.
_LONG = 1.0
#: Threads of a runtime look for work for a while after a run; they must be asleep when the next one begins.
_PAUSE = 0.05


class Answering(Protocol):
    """What a contest needs of a process."""

    def ask(self, do: str, **request: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Participant:
    """A program to be timed.

    Attributes:
        opening: how a worker opens it.
        slow: whether it stops after `Rounds.slow` rounds.
        python: the interpreter of its process, "" for this one's.
    """

    name: str
    opening: Mapping[str, Any]
    slow: bool = False
    python: str = ""


@dataclass(frozen=True)
class Rounds:
    """How long is measured.

    Attributes:
        number: rounds; each gives every participant one turn.
        slow: rounds in which slow participants take part.
        seconds, most: a turn lasts about that long, but at most so many runs.
    """

    number: int = 7
    slow: int = 3
    seconds: float = 0.4
    most: int = 40


def hold(
    key: str, digest: str, participants: Sequence[Participant], rounds: Rounds, step: Callable[[], None]
) -> Contest:
    """Measures; one that cannot run is left out and its reason kept. `step` is called after every round."""
    with ExitStack() as stack:
        processes = {p.name: stack.enter_context(Process(p.python)) for p in participants}
        return take_turns(Contest(key, digest, {}), participants, processes, rounds, step)


def take_turns(
    empty: Contest,
    participants: Sequence[Participant],
    processes: Mapping[str, Answering],
    rounds: Rounds,
    step: Callable[[], None],
    pause: float = _PAUSE,
) -> Contest:
    """As `hold`, with processes that are there already; what is measured is put into `empty`."""
    turns: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    failed: dict[str, str] = {}
    last: dict[str, float] = {}

    def attempt(p: Participant, do: str, **request: Any) -> Mapping[str, Any]:
        try:
            return processes[p.name].ask(do, **request)
        except WorkerError as error:
            failed[p.name] = str(error)
            turns.pop(p.name, None)
            return {}

    for p in participants:
        attempt(p, "open", **p.opening)
        if p.name not in failed:
            # The first run allocates; it is not counted.
            first = attempt(p, "turn", seconds=0.0, most=1, warm=False)
            last[p.name] = first["times"][0] if first else 0.0
    for number in range(rounds.number):
        # Nobody always comes after the same one.
        start = number % max(len(participants), 1)
        for p in [*participants[start:], *participants[:start]]:
            if p.name in failed or (p.slow and number >= rounds.slow):
                continue
            time.sleep(pause)
            got = attempt(p, "turn", seconds=rounds.seconds, most=rounds.most, warm=last[p.name] < _LONG)
            if got:
                last[p.name] = median(got["times"])
                turns.setdefault(p.name, []).append(last[p.name])
                peaks[p.name] = got["peak"]
        step()
    return replace(empty, turns=turns, peaks=peaks, failed=failed)
