"""Metrics against numbers of other packages, recorded by tests/reference/metrics_reference.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.reference import metrics_reference as reference

CASES = {case.name: case for case in reference.cases()}
RECORDED = np.load(reference.RECORDED)


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_the_reference_gives(name):
    case = CASES[name]
    assert reference.difference(case.ours(), RECORDED[case.key]) <= case.tolerance


def test_every_number_is_recorded_with_where_it_is_from():
    assert set(RECORDED.files) == {case.key for case in CASES.values()} | {"about"}
    about = json.loads(str(RECORDED["about"]))
    assert about["command"] in (reference.__doc__ or "")
    assert {package for case in CASES.values() for package in case.package.split(", ")} <= set(about["versions"])
    assert reference.RECORDED.stat().st_size < 300_000


def test_the_page_has_a_row_for_each():
    table = reference.PAGE.read_text().split(reference.BEGIN)[1].split(reference.END)[0]
    rows = [line.split(" | ")[0].lstrip("| ") for line in table.strip().splitlines()[2:]]
    assert rows == list(CASES)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(1.0, 1.0, 0.0), (1.1, 1.0, 0.1), ([2.0, 1e-3], [2.0, 0.0], 5e-4), ([1.0], 1.0, np.inf), (1e-9, 0.0, 1e-9)],
)
def test_the_difference_is_relative(ours, theirs, expected):
    assert reference.difference(ours, theirs) == pytest.approx(expected)


def test_what_is_not_finite_is_no_agreement():
    assert not reference.difference(np.nan, 1.0) <= 1e-6
