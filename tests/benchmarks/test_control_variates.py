"""The table of control variates: a row for each problem, and less variance where q is close to the posterior."""

import pytest

from benchmarks import control_variates

pytestmark = pytest.mark.usefixtures("as_a_script")


def test_there_is_a_row_for_each_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(control_variates, "OFFSETS", (0.1,))
    monkeypatch.setattr(control_variates, "RUNS", 2)
    monkeypatch.setattr(control_variates, "_digits", lambda name, draws: {"hiwae-2": 1.25}[name] * draws / 100)
    control_variates.main(["--models", "hiwae-2", "--draws", "100", "--output", str(tmp_path)])
    title, _, *rows = (tmp_path / "control_variates.md").read_text().splitlines()
    assert "100 draws" in title
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [cell[:2] for cell in cells] == [
        ["linear Gaussian, q off by 0.1", "0"],
        ["linear Gaussian, q off by 0.1", "1"],
        ["digits, H-IWAE, K = 5", "2"],
    ]
    assert 0.05 < float(cells[1][2]) < 0.6 < 1.25 == float(cells[2][2])
