"""Results of many runs in one file: what is added, what stays, and what is refused."""

import json

import pytest

from experiments.tables import collected
from tests.experiments.tables.made_results import MLP, content_of, write


def origin(**changes):
    return {"commit": "a", "command": "one", "jax": "1", "device": "cpu", "processor": "abacus", "date": "d", **changes}


@pytest.fixture
def runs(tmp_path):
    """Three runs on two data sets; one of them was computed by another commit."""
    cells = [(MLP, "a"), (MLP._replace(num_samples=5), "b"), (MLP._replace(dataset="mnist"), "a")]
    for settings, commit in cells:
        content = content_of(settings, test_nll=[90.0, 91.0, 92.0])
        write(tmp_path / "runs" / settings.name(), {**content, "provenance": origin(commit=commit)})
    return [settings for settings, _ in cells]


def test_cells_are_collected_by_data_set_and_provenance_is_kept_once(runs, tmp_path):
    kept = tmp_path / "kept"
    written = collected.collect([tmp_path / "runs"], kept)
    assert {path.name for path in written} == {"binarized_mnist-mlp.json", "mnist-mlp.json"}
    content = json.loads((kept / "binarized_mnist-mlp.json").read_text())
    assert sorted(entry["commit"] for entry in content["provenance"]) == ["a", "b"]
    assert content["history"] == []
    found = collected.read([kept])
    assert {result.settings for result in found} == set(runs)
    commits = {result.settings.num_samples: result.content["provenance"]["commit"] for result in found}
    assert commits[5] == "b"


def test_history_stays_and_nothing_is_written_twice(runs, tmp_path):
    kept = tmp_path / "kept"
    collected.collect([tmp_path / "runs" / runs[0].name()], kept)
    path = kept / "binarized_mnist-mlp.json"
    path.write_text(path.read_text().replace('"history":[]', '"history":[{"note":"beside other work"}]'))
    assert path in collected.collect([tmp_path / "runs"], kept)
    assert json.loads(path.read_text())["history"] == [{"note": "beside other work"}]
    assert len(json.loads(path.read_text())["cells"]) == 2
    assert collected.collect([tmp_path / "runs"], kept) == []


@pytest.mark.parametrize("number", [7, "x", None])
def test_a_cell_without_its_provenance_is_refused_by_name(number, runs, tmp_path):
    kept = tmp_path / "kept"
    collected.collect([tmp_path / "runs"], kept)
    path = kept / "mnist-mlp.json"
    content = json.loads(path.read_text())
    content["cells"][0]["provenance"] = number
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"^{path}, cell 0: provenance: expected also jax, device"):
        collected.read([kept])
