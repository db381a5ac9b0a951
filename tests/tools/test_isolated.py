"""Networks are measured in processes of their own: one that hangs, dies or throws stops nothing but itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from zoo.isolated import Job, Limits, Tell, isolated
from zoo.network import Network
from zoo.row import Row

NETWORK = Network("timm", "resnet", "odd", 64)
EXPORTERS = ("dynamo", "torchscript")


def worker(job: Job, tell: Tell) -> Iterator[Row]:
    """Does what its rule table is called, at the first of two exporters."""
    for exporter in job.exporters:
        tell("export")
        if exporter == "dynamo":
            _misbehave(job.rules)
        yield replace(Row.start(job.network, exporter, job.rules), nodes=7)


def _misbehave(how: str) -> None:
    if how == "dies":
        os.abort()
    if how == "leaves":
        os._exit(3)
    if how == "hangs":
        time.sleep(60)
    if how == "throws":
        raise ValueError("what nobody thought of")


def measured(how: str, seconds: float | None = None) -> Sequence[Row]:
    return list(isolated(Job(NETWORK, EXPORTERS, how), worker, Limits(seconds)))


def test_what_goes_well_is_handed_on() -> None:
    assert [(r.exporter, r.nodes, r.passed) for r in measured("well")] == [(e, 7, True) for e in EXPORTERS]


def test_memory_that_runs_out_is_a_limit_of_the_machine() -> None:
    row = Row.start(NETWORK, "dynamo", "epsilon")
    assert row.failed("verify", "MemoryError: std::bad_alloc").stage == "limits"
    assert row.failed("verify", "ledger").stage == "verify"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("dies", "the process ended (SIGABRT)"),
        ("leaves", "the process ended (exit code 3)"),
        ("throws", "the process ended (exit code 1)"),
    ],
)
def test_a_process_that_ends_is_a_failure_of_what_it_did(how: str, reason: str) -> None:
    first, second = measured(how)
    assert (first.exporter, first.stage, first.reason) == ("dynamo", "export", reason)
    assert (second.exporter, second.passed) == ("torchscript", True)


def test_what_takes_too_long_is_cut_off_and_counts_as_such() -> None:
    first, second = measured("hangs", 2)
    assert (first.stage, first.reason) == ("limits", "not done in 2 s, cut off at export")
    assert second.passed
