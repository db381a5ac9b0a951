"""Networks measured in processes of their own, so that none that crashes, hangs or eats up memory stops the others."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from zoo.network import Network
from zoo.row import Row

#: Told each stage as it begins.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """What one export may take. None: no limit.

    Attributes:
        seconds: wall-clock time for one network and one exporter.
        gibibytes: address space of the process.
        niceness: how far the process steps back for others, as in nice(1).
    """

    seconds: float | None = None
    gibibytes: int | None = None
    niceness: int = 0


@dataclass(frozen=True)
class Job:
    """What a process is given: a network, and how it is measured."""

    network: Network
    exporters: Sequence[str]
    rules: str
    dynamic: str = "batch"


#: Yields the rows of a job.
Worker = Callable[[Job, Tell], Iterator[Row]]


def isolated(job: Job, worker: Worker, limits: Limits) -> Iterator[Row]:
    """The rows of a job, one for each exporter. One that breaks a limit or ends its process gets a row that says so;
    the rest of the exporters then start again in a new process."""
    left = list(job.exporters)
    while left:
        for row in _attempt(replace(job, exporters=tuple(left)), worker, limits):
            left.remove(row.exporter)
            yield row


def _attempt(job: Job, worker: Worker, limits: Limits) -> Iterator[Row]:
    """The rows of one process, at least one."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, job, worker, limits), daemon=True)
    process.start()
    there.close()
    try:
        for exporter in job.exporters:
            row, goes_on = _next(here, process, Row.start(job.network, exporter, job.rules), limits)
            yield row
            if not goes_on:
                return
        process.join(timeout=30)
    finally:
        process.kill()
        process.join()
        here.close()


def _next(pipe: Connection, process: Any, about: Row, limits: Limits) -> tuple[Row, bool]:
    """Waits for a row, or makes one where the process ends or takes too long; and whether the process goes on."""
    deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
    stage = "build"
    while pipe.poll(None if deadline is None else max(deadline - time.monotonic(), 0.0)):
        try:
            said: str | Row = pipe.recv()
        except EOFError:
            process.join()
            return about.failed(stage, f"the process ended ({_ending(process.exitcode)})"), False
        if isinstance(said, Row):
            return said, True
        stage = said
    return replace(about, stage="limits", reason=f"not done in {limits.seconds:.0f} s, cut off at {stage}"), False


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:  # which nobody but the system sends
        return "killed: out of memory"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _work(pipe: Connection, job: Job, worker: Worker, limits: Limits) -> None:
    os.nice(limits.niceness)
    if limits.gibibytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limits.gibibytes << 30, limits.gibibytes << 30))
    for row in worker(job, pipe.send):
        pipe.send(row)
    pipe.close()
