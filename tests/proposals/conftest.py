"""Proposals are tested in double precision."""

import pytest


@pytest.fixture(autouse=True)
def _double_precision(double_precision):
    """For every test of this folder."""
