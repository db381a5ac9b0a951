"""Means, intervals and paired differences."""

from __future__ import annotations

import numpy as np

from onnxlrp.evaluation.statistics import difference, summary


def test_a_summary_leaves_out_what_cannot_be_judged() -> None:
    found = summary(np.asarray([1.0, np.nan, 2.0, 6.0]))
    assert (found.count, found.mean, found.median) == (3, 3.0, 2.0)
    assert 1 <= found.low <= 3 <= found.high <= 6
    nothing = summary(np.asarray([np.nan]))
    assert nothing.count == 0
    assert np.isnan([nothing.mean, nothing.median, nothing.low, nothing.high]).all()


def test_equal_numbers_have_an_interval_without_width() -> None:
    found = summary(np.full(5, 0.25))
    assert (found.low, found.high) == (0.25, 0.25)


def test_the_interval_is_that_of_the_mean() -> None:
    """For many normal numbers the bootstrap interval is the mean and 1.96 standard errors on both sides."""
    numbers = np.random.default_rng(0).normal(3, 2, 400)
    found = summary(numbers, resamples=20000)
    error = 1.96 * numbers.std() / 20
    np.testing.assert_allclose([found.low, found.high], [numbers.mean() - error, numbers.mean() + error], atol=0.01)


def test_about_95_of_100_intervals_hold_the_true_mean() -> None:
    generator = np.random.default_rng(1)
    found = [summary(generator.exponential(1.0, 60), seed, resamples=500) for seed in range(300)]
    share = np.mean([one.low <= 1 <= one.high for one in found])
    assert 0.89 <= share <= 0.98


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_calls() -> None:
    numbers = np.random.default_rng(0).normal(size=50)
    first = summary(numbers, seed=7)
    summary(numbers[:20], seed=3)
    assert summary(numbers, seed=7) == first
    assert summary(numbers, seed=8) != first


def test_many_samples_are_resampled_in_parts() -> None:
    numbers = np.random.default_rng(0).normal(size=600_000)
    found = summary(numbers, resamples=6)
    assert found.low <= found.mean <= found.high


def test_paired_differences() -> None:
    generator = np.random.default_rng(0)
    one = generator.normal(0, 10, 100)
    better = one + generator.normal(0.5, 0.5, 100)
    found = difference(better, one)
    assert found.of.low > 0, "what two methods share in a sample does not widen the interval"
    np.testing.assert_allclose(found.of.mean, (better - one).mean())
    np.testing.assert_allclose(found.share, (better > one).mean())
    none = difference(one, one)
    assert (none.of.low, none.of.high, none.share) == (0, 0, 0.5)
    gaps = difference(np.asarray([1.0, np.nan, 3.0]), np.asarray([np.nan, 2.0, 1.0]))
    assert (gaps.of.count, gaps.of.mean, gaps.share) == (1, 2.0, 1.0)
