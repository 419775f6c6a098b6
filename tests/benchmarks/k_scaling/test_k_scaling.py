"""What the K-scaling benchmark counts, and that its parts fit together."""

import collections
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from matplotlib import pyplot as plt

import hiwae_jax as hj
from benchmarks.k_scaling import ahead, cells, effort, tables
from benchmarks.k_scaling import command as k_scaling
from experiments.shared.networks import Networks

CELL = "IWLB, reparameterized, mlp, float32, recommended, K = 3"


@pytest.mark.parametrize(("decoder", "accuracy"), [("mlp", 0.01), ("conv", 0.1)])
def test_flops_of_a_decoder_are_those_that_the_compiler_counts(decoder, accuracy):
    """Up to activations, and products with the zeros of a border, which it leaves out."""
    sizes = cells.Sizes()

    def decode(networks, z):
        return jax.vmap(networks.decoder)(z)

    networks = nnx.eval_shape(lambda: Networks(sizes.of_networks(decoder), rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(networks, nnx.Param)

    def flops(rows):
        z = jax.ShapeDtypeStruct((rows, sizes.latent), jnp.float32)
        program = jax.jit(lambda params, z: decode(nnx.merge(graphdef, params), z)).lower(params, z)
        return program.compile().cost_analysis()["flops"]

    # What is done once for all rows, the norms of kernels, cancels.
    counted = (flops(32) - flops(16)) / 16
    assert cells.decoder_flops(decoder, sizes) == pytest.approx(counted, rel=accuracy)


def test_a_run_in_two_pieces(tmp_path, capsys):
    arguments = ["--smoke", "--output", str(tmp_path), "--only", "IWLB, doubly", "mlp, float32, recommended"]
    k_scaling.run(k_scaling.parse([*arguments, "--time-limit", "0"]))
    assert (
        "1 cells are left:\n  IWLB, doubly_reparameterized, mlp, float32, recommended, K = 3" in capsys.readouterr().out
    )
    k_scaling.run(k_scaling.parse(arguments))
    (path,) = tmp_path.glob("*.json")
    (cell,) = json.loads(path.read_text())["cells"].values()
    assert cell["microseconds_per_sample"] > 0.0
    assert cell["samples"] == 4 * 3
    assert (tmp_path / "k_scaling.png").exists()


@pytest.fixture
def cache(tmp_path):
    """An empty compilation cache, and what JAX did with it: events by name, without those of threads of other tests."""
    thread = threading.get_ident()
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    compilation_cache.reset_cache()
    events = collections.Counter()

    def count(event, **_):
        if threading.get_ident() == thread:
            events[event.rsplit("/")[-1]] += 1

    jax.monitoring.register_event_listener(count)
    yield events
    jax.monitoring.unregister_event_listener(count)
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
    compilation_cache.reset_cache()


@pytest.fixture
def one_cell(tmp_path, cache, monkeypatch):
    """A function that measures one cell as on an accelerator, with two processes that compile before."""
    chosen = effort.effort(accelerator=False, smoke=True)._replace(programs=2)
    monkeypatch.setattr(effort, "effort", lambda **kind: chosen)

    def measure():
        jax.clear_caches()
        only = ["IWLB, reparameterized", "mlp, float32, recommended"]
        assert k_scaling.run(k_scaling.parse(["--smoke", "--output", str(tmp_path), "--only", *only])) == 0
        (cell,) = json.loads((tmp_path / "k_scaling_cpu.json").read_text())["cells"].values()
        assert cell["milliseconds"] > 0.0
        return cell

    return measure


@pytest.mark.usefixtures("as_a_script")
def test_what_other_processes_compiled_is_measured_and_not_compiled_again(one_cell, cache):
    cell = one_cell()
    assert cache["compile_requests_use_cache"] == cache["cache_hits"] > 10
    (same,) = [other for other in cells.grid(accelerator=False, smoke=True) if other.name() == CELL]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    assert cell["temp_bytes"] == cells.build(same, cells.Sizes(4, 20, 16, 3, 5, 12)).temp_bytes > 0


@pytest.mark.usefixtures("as_a_script")
def test_what_other_processes_could_not_compile_is_compiled_when_it_is_measured(one_cell, cache, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    one_cell()
    assert cache["cache_misses"] > 10


@pytest.mark.parametrize("way", ["deadline", "SIGTERM"])
def test_processes_that_compile_end_with_the_command(tmp_path, monkeypatch, way):
    (tmp_path / "sleep").write_text(f'#!/bin/sh\necho "$$ $*" >> {tmp_path}/calls\nexec sleep 600\n')
    (tmp_path / "sleep").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "sleep"))
    options = k_scaling.parse(["--smoke", "--output", str(tmp_path)])
    before = signal.getsignal(signal.SIGTERM)
    if way == "SIGTERM":
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(SystemExit, match="143"):
            ahead.compile_all(["a", "b", "c"], options, 2, None)
    else:
        ahead.compile_all(["a", "b", "c"], options, 2, time.monotonic() + 1.0)
    assert signal.getsignal(signal.SIGTERM) == before
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sorted(call.split("--compile ")[1] for call in calls) == ["a c", "b"]
    for pid in (call.split()[0] for call in calls):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_an_accelerator_begins_with_every_combination_at_few_k():
    grid = cells.grid(accelerator=True, smoke=False)
    assert len(grid) == len({cell.name() for cell in grid})
    first = list(cells.accelerator_first())
    assert grid[: len(first)] == first
    combinations = itertools.product(
        ("IWLB", "H-IWLB"),
        ("doubly_reparameterized", "reparameterized"),
        ("mlp", "conv"),
        ("float32", "tf32", "bfloat16"),
        (1, 10, 100, 1_000, 10_000),
    )
    found = [(c.bound.split()[0], c.gradient, c.decoder, c.precision, c.num_samples) for c in first]
    assert sorted(found) == sorted(combinations)
    assert {(c.bound, c.alpha) for c in first} == {("IWLB", 0.0), ("H-IWLB", 1.0), ("H-IWLB offsets", 1.0)}
    # The most important ones: the IWLB of the MLP, and then something of every kind.
    assert {(c.bound, c.decoder, c.gradient) for c in first[:15]} == {("IWLB", "mlp", "doubly_reparameterized")}
    assert {c.bound[0] for c in first[:35]} == {"I", "H"}
    assert {c.decoder for c in first[:35]} == {"mlp", "conv"}
    # All lines of the figure are measured.
    drawn = {
        (c.bound, c.alpha, c.precision, c.way)
        for c in grid
        if (c.task, c.decoder, c.gradient) == ("train", "mlp", tables.GRADIENT)
    }
    assert tables.SHOWN.keys() <= drawn


def test_the_figure_has_time_and_memory_of_the_shown_cells_of_each_device(tmp_path, monkeypatch):
    def cell(bound, K, **changes):
        found = cells.Cell("train", "mlp", bound, 0.0, tables.GRADIENT, "float32", "recommended", K)._asdict() | changes
        measured = {"microseconds_per_sample": 2.0 * K, "temp_bytes": 3e6 * K, "milliseconds": 1.0}
        return found | measured | {"attainable": 1e12, "flops": 6.4e7, "samples": 64}

    content = {
        "provenance": {"device": "cpu cpu", "processor": "a chip, 8 cores", "used_cores": 2},
        "cells": {
            "a": cell("IWLB", 10),
            "b": cell("IWLB", 1),
            "c": cell("IWLB", 1, gradient="refilled"),
            "d": cell("H-IWLB", 5, alpha=1.0),
            "d2": cell("H-IWLB", 20, alpha=1.0),
            "f": {**cell("IWLB", 5, precision="tf32"), "attainable": 1e13},  # a point alone is no line
            "e": {**cell("IWLB", 100), "task": "evaluate"},
        },
    }
    low = {"precision": "tf32", "attainable": 1e13, "microseconds_per_sample": 0.2}
    more = {"g": cell("IWLB", 1) | low, "h": cell("IWLB", 10) | low}
    gpu = {"provenance": {"device": "gpu A chip", "processor": "", "used_cores": 1}, "cells": content["cells"] | more}
    figures = []
    with monkeypatch.context() as context:
        context.setattr(plt, "close", figures.append)
        tables.draw([content, gpu], tmp_path / "figure.png")
    (figure,) = figures
    first, memory, second, _ = figure.axes
    assert first.get_title(loc="left").splitlines() == ["a chip, 2 cores", "Microseconds a sample, value and gradient"]
    assert second.get_title(loc="left").startswith("A chip\n")

    def lines(axis):
        found = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}
        return {label: data for label, data in found.items() if not label.startswith("_")}

    assert lines(first) == {"IWLB": ([1, 10], [2.0, 20.0]), "H-IWLB, alpha 1": ([5, 20], [10.0, 40.0])}
    assert lines(memory) == {"IWLB": ([1, 10], [3.0, 30.0]), "H-IWLB, alpha 1": ([5, 20], [15.0, 60.0])}
    assert {text.get_text() for text in memory.texts} == {"IWLB", "H-IWLB, alpha 1"}

    def limits(axis):  # lines over the whole width
        return [line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]]

    # Microseconds: 1e6 FLOPs a sample at 1e12 a second, and at 1e13 where tf32 has a line too.
    assert limits(first) == [1.0]
    assert limits(second) == [1.0, 0.1]
    assert second.get_ylim()[0] < 0.1
    plt.close(figure)


def test_a_cell_of_accelerators_alone_has_a_bound_in_float32(monkeypatch):
    """Members that share a head, convolutional networks and bfloat16 together; traced and not compiled."""

    def initial(cell, sizes):
        return nnx.eval_shape(lambda: nnx.split(cells._Networks(cell, sizes, rngs=nnx.Rngs(0)), nnx.Param)[1])

    monkeypatch.setattr(cells, "_initial", initial)
    cell = cells.Cell("train", "conv", "H-IWLB offsets", 1.0, "reparameterized", "bfloat16", "recommended", 2)
    sizes = cells.Sizes(2, 20, 16, 3, 5, 12)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = cells.make_model(cell, sizes)
        bound = hj.make_bound(model.log_joint, model.proposal, weighting=model.weighting, gradient=cell.gradient)
        arguments = model.params, cells.make_images(cell, sizes)[0], jax.random.key(0)
        value, gradient = jax.eval_shape(jax.value_and_grad(bound), *arguments)
    assert (value.shape, value.dtype) == ((), jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
