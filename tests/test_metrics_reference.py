"""Metrics against numbers of other packages, recorded by the scripts in tests/reference."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.reference import comparison, disentanglement_metrics, metrics_reference

RECORDED = {script: np.load(script.RECORD.recorded) for script in (metrics_reference, disentanglement_metrics)}
INPUTS = {disentanglement_metrics: {"importance", "accuracy"}, metrics_reference: set()}
CASES = {
    metrics_reference: metrics_reference.cases(),
    disentanglement_metrics: disentanglement_metrics.cases(RECORDED[disentanglement_metrics]),
}
SCRIPTS = pytest.mark.parametrize("script", CASES, ids=lambda script: script.RECORD.name)


@pytest.mark.parametrize(
    ("script", "case"),
    [pytest.param(script, case, id=case.name) for script, cases in CASES.items() for case in cases],
)
def test_it_is_what_the_reference_gives(script, case):
    assert comparison.difference(case.ours(), RECORDED[script][case.key]) <= case.tolerance


@SCRIPTS
def test_every_number_is_recorded_with_where_it_is_from(script):
    recorded = RECORDED[script]
    assert set(recorded.files) == {case.key for case in CASES[script]} | {"about"} | INPUTS[script]
    about = json.loads(str(recorded["about"]))
    assert about["command"] == script.RECORD.command and about["command"] in (script.__doc__ or "")
    assert {package for case in CASES[script] for package in case.package.split(", ")} <= set(about["versions"])
    assert script.RECORD.recorded.stat().st_size < 300_000


@SCRIPTS
def test_the_page_has_a_row_for_each(script):
    rows = [line.split(" | ")[0].lstrip("| ") for line in script.RECORD.table().splitlines()[2:]]
    assert rows == [case.name for case in CASES[script]]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(1.0, 1.0, 0.0), (1.1, 1.0, 0.1), ([2.0, 1e-3], [2.0, 0.0], 5e-4), ([1.0], 1.0, np.inf), (1e-9, 0.0, 1e-9)],
)
def test_the_difference_is_relative(ours, theirs, expected):
    assert comparison.difference(ours, theirs) == pytest.approx(expected)


def test_what_is_not_finite_is_no_agreement():
    assert not comparison.difference(np.nan, 1.0) <= 1e-6
