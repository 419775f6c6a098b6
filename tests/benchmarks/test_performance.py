"""The short tables of docs/performance.md on results that are made up."""

import pytest

from benchmarks import performance
from benchmarks.overhead.tables import AT_ONCE, DISPATCHED, EXACT, ONE_PROGRAM, PORT, REFILLED

MIB = 2**20


def rows(table):
    return [line.strip("| ").split(" | ") for line in table.splitlines()]


@pytest.fixture
def peers():
    """The ratio of contestant number n is n + K / 100, its quartiles are far away, and its memory K MiB or less."""

    def cell(K):
        names = ["jax", *performance.PEERS]
        memory = {"hiwae": K * MIB, "hiwae-chunks": MIB // 4}
        return {
            "num_samples": K,
            "contestants": {
                name: {"cpu_ratio": [0.0, number + K / 100, 99.0], "temp_bytes": memory.get(name)}
                for number, name in enumerate(names)
            },
        }

    return {"cells": [cell(50), cell(1)]}


def test_the_peers_are_in_the_order_of_k(peers):
    header, _, first, *_, last = rows(performance.peers_table(peers))
    assert header == ["CPU time of a step / plain JAX", "K = 1", "K = 50"]
    assert first == ["hiwae_jax, whole batch", "1.01", "1.50"]
    assert last == ["temporaries, whole batch / chunks, MiB", "1.0 / 0.2", "50 / 0.2"]
    assert rows(performance.allocator_table(peers))[-1] == ["PyTorch by hand, compiled", "11.01", "11.50"]


def test_k_scaling_has_a_row_for_each_way_and_says_what_does_not_fit():
    def cell(bound, K, way="recommended", **changes):
        found = {"task": "train", "decoder": "mlp", "gradient": EXACT, "precision": "float32", "alpha": 0.0}
        figures = {"milliseconds": 1.0, "microseconds_per_sample": K / 10, "fraction": 0.5, "temp_bytes": K * 1e6}
        return found | {"bound": bound, "num_samples": K, "way": way} | figures | changes

    large = cell("IWLB", 5_000, "all at once")
    del large["milliseconds"]
    cells = [cell("IWLB", 1), cell("IWLB", 5_000), cell("IWLB", 2), large, cell("H-IWLB offsets", 5_000, fraction=0.1)]
    cells += [
        cell("IWLB", 7, gradient=REFILLED),
        cell("IWLB", 9, precision="bfloat16"),
        cell("IWLB", 8, task="evaluate"),
    ]
    header, _, time, fraction, memory, at_once, of_once, one_head, _ = rows(
        performance.k_scaling_table({"cells": dict(enumerate(cells))})
    )
    assert header == ["DReG", "K = 1", "5,000"]
    assert time[1:] == ["0.1", "500.0"]
    assert fraction[1:] == ["50 %", "50 %"]
    assert memory[1:] == ["1.0", "5,000"]
    assert at_once[1:] == ["", "does not fit"]
    assert of_once[1:] == ["", "5,000"]
    assert one_head[1:] == ["", "500.0"]


def test_steps_compilations_and_the_contest_with_pytorch():
    def cell(nets, K):
        steps = {
            f"{name} {gradient}": {
                "cpu": [number + K / 100, 0, 9],
                "flops_ratio": number,
                "compile_seconds": 15 + number,
            }
            for number, name in enumerate(("IWLB", "H-IWLB 0", "H-IWLB 1", "H-IWLB 3"))
            for gradient in (EXACT, REFILLED)
        }
        return {"nets": nets, "num_samples": K, "steps": steps}

    ways = {name: {"cpu": [0.5, 0, 9], "bytes": 3 * MIB} for name in (ONE_PROGRAM, DISPATCHED, AT_ONCE)}
    contest = {"nets": "conv", "num_samples": 5, "ways": {**ways, PORT: {"cpu": [1.0, 1, 1], "bytes": 9 * MIB}}}
    content = {
        "cells": dict(enumerate([cell("mlp", 5), cell("mlp", 1), cell("conv", 5), cell("conv", 1)])),
        "contests": {"one": contest},
    }
    header, _, first, *_, last = rows(performance.overhead_table(content))
    assert header[1:] == ["K = 1", "K = 5"]
    assert first == ["conv, alpha 0", "1.01 (1.00)", "1.05 (1.00)"]
    assert last == ["mlp, alpha 1, refilled", "2.01 (2.00)", "2.05 (2.00)"]
    compiled = rows(performance.compile_table(content))
    assert compiled[2:] == [["mlp, K = 5", "15.0", "16.0", "17.0"], ["conv, K = 5", "15.0", "16.0", "17.0"]]
    *_, port = rows(performance.pytorch_table(content))
    assert port == ["MiB, ours / the port's", "3 / 9"]
