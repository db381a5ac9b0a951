"""Many cases in several processes, and which of them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch

from backend.cases import Case, load
from backend.check import check
from backend.results import Result


def chosen(patterns: Sequence[str] = ("*",), sample: int | None = None) -> list[str]:
    """Names of the cases that match one of the patterns; of these a sample over all operators where asked for.

    The sample takes the first case of each operator, then the second, and so on: it is the same every time.
    """
    cases = [c for c in load() if any(fnmatch(c.name, p) for p in patterns)]
    if sample is None or sample >= len(cases):
        return [c.name for c in cases]
    turn: dict[str, int] = {}
    ranked = []
    for position, case in enumerate(cases):
        turn[case.operator] = turn.get(case.operator, -1) + 1
        ranked.append((turn[case.operator], position, case.name))
    return [name for _, _, name in sorted(ranked)[:sample]]


def by_name(name: str) -> Case:
    return next(c for c in load() if c.name == name)


def _checked(name: str) -> Result:
    return check(by_name(name))


def _start() -> None:
    # Processes that share the processors must not each take all of them.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    load()


def results(names: Sequence[str], jobs: int, watch: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """The results of the named cases, in the order of the names."""
    found: dict[str, Result] = {}
    for result in _each(names, jobs):
        watch(result)
        found[result.name] = result
    return [found[name] for name in names]


def _each(names: Sequence[str], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(_checked, names)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _start) as pool:
        yield from pool.imap_unordered(_checked, names, chunksize=4)
