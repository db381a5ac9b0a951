"""The parent's side of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmark.machine import REPOSITORY

_TOOLS = Path(__file__).resolve().parents[1]


class WorkerError(Exception):
    """A worker could not do what it was asked; the message says why."""


class Process:
    """A worker process of an interpreter, this one's unless another is named; leaving the `with` block ends it.

    Raises:
        WorkerError: there is no such interpreter.
    """

    def __init__(self, python: str = "") -> None:
        paths = [str(_TOOLS), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        try:
            self._child = subprocess.Popen(
                [python or sys.executable, "-m", "benchmark.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
            )
        except OSError as error:
            raise WorkerError(f"{python or sys.executable}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._child.kill()
        self._child.communicate()

    def ask(self, do: str, **request: Any) -> Mapping[str, Any]:
        """The worker's answer.

        Raises:
            WorkerError: it failed, or died (out of memory, for example).
        """
        if self._child.stdin is None or self._child.stdout is None:
            raise WorkerError("the worker has no pipes")
        try:
            self._child.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # the worker has died; the missing answer says so below
        line = self._child.stdout.readline()
        if not line:
            raise WorkerError(f"the process ended with code {self._child.wait()}")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(str(answer["error"]))
        return answer


def in_own_process(do: str, **request: Any) -> Mapping[str, Any]:
    """One request to a process of its own."""
    with Process() as process:
        return process.ask(do, **request)
