"""The same numbers on one device, on eight, and on two processes of four; and what is sent between devices."""

import argparse
import json
import math
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import hiwae_jax as hj
from experiments.shared import stored
from experiments.vae import checkpoints, images, layout, training
from experiments.vae import command as vae
from experiments.vae.models import make_model
from tests import device_program as program

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
DATA, SAMPLE = 4, 2
ROWS = program.BATCH // DATA
# Relative to the largest number of a gradient, which is a sum of some thousand float32 products. Another order of
# summation moves it by less than a unit in the last place for every doubling of their number.
ROUNDING = 16 * float(np.finfo(np.float32).eps)
PARAMETERS = {tuple(sorted(shape)) for shape in program.SHAPES.values()}
PARAMETERS |= {tuple(sorted((wide, narrow // SAMPLE))) for wide, narrow in program.SHAPES.values()}


def start(*arguments, devices):
    """The program in a process of its own, with so many devices."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.device_program", str(devices), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes)


def finish(*processes):
    """Wait for all; one that fails would leave the others waiting for it, so they are ended."""
    while any(process.poll() is None for process in processes) and not any(process.poll() for process in processes):
        time.sleep(0.1)
    failed = [process for process in processes if process.poll()]
    for process in processes:
        if process.poll() is None:
            process.kill()
    outputs = {process: process.communicate()[0] for process in processes}
    assert not failed, "\n".join(outputs[process] for process in failed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    finish(start("devices", folder, devices=DATA * SAMPLE))
    return folder


@pytest.fixture(scope="module")
def on_devices(folder):
    return json.loads((folder / "devices.json").read_text())


@pytest.fixture(scope="module")
def in_processes(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    finish(*[start("process", folder, address, index, devices=DATA * SAMPLE // 2) for index in range(2)])
    return [json.loads((folder / f"process-{index}.json").read_text()) for index in range(2)]


def without_parameters(collectives):
    """What is sent besides gradients of parameters: `(operation, shape)`."""
    return [(kind, shape) for kind, shapes in collectives for shape in shapes if tuple(sorted(shape)) not in PARAMETERS]


@pytest.mark.parametrize("name", program.ALPHA)
def test_values_and_gradients_are_those_of_one_device(on_devices, name):
    seen = on_devices["bounds"][name]
    assert seen["values"] < ROUNDING
    assert seen["gradients"] < ROUNDING


@pytest.mark.parametrize("name", ["iwae", "hiwae-0"])
def test_only_sums_over_samples_are_sent(on_devices, name):
    sent = without_parameters(on_devices["bounds"][name]["collectives"])
    assert {kind for kind, _ in sent} == {"all-reduce"}
    # Maximum and sum of the weights of each example, the loss, and for each example the gradients of what its samples
    # share: context, hidden units and parameters of the proposal. No axis of samples.
    widths = {program.CONTEXT, program.PROPOSAL_HIDDEN, program.LATENT}
    assert {tuple(shape) for _, shape in sent} <= {(), (ROWS,), *((ROWS, width) for width in widths)}


def test_a_power_heuristic_sends_the_members_parameters(on_devices):
    sent = without_parameters(on_devices["bounds"]["hiwae-1"]["collectives"])
    members = [kind for kind, shape in sent if math.prod(shape) >= ROWS * program.K * program.LATENT]
    # Location and scale of all members and their gradients, by either estimator.
    assert sorted(members) == ["all-gather"] * 4 + ["all-reduce"] * 4
    activations = ROWS * (program.K // SAMPLE) * program.PIXELS
    assert max(math.prod(shape) for _, shape in sent) == ROWS * program.K * program.LATENT < activations


def test_parameters_may_be_split_too(on_devices):
    seen = on_devices["sharded_parameters"]
    assert seen["values"] < ROUNDING
    assert seen["gradients"] < ROUNDING
    assert seen["piece"] == [program.LATENT, program.HIDDEN // 2]
    assert {kind for kind, _ in seen["collectives"]} == {"all-reduce"}


def test_the_mean_over_devices_belongs_into_the_loss(on_devices):
    assert on_devices["by_hand"]["mean_in_loss"] < ROUNDING
    assert on_devices["by_hand"]["in_chunks"] < ROUNDING
    # A control: the mean of gradients is larger by the number of devices.
    assert on_devices["by_hand"]["mean_of_gradients"] < ROUNDING


def test_minibatches_go_in_chunks_on_explicit_axes(on_devices):
    seen = on_devices["explicit_axes"]
    for way in ("inside", "dispatched"):
        assert seen[way]["values"] < ROUNDING
        assert seen[way]["gradients"] < ROUNDING
    assert seen["pieces"] == [[program.LATENT, program.HIDDEN // 2]] * 2


def test_what_does_not_divide_is_refused_by_name(on_devices):
    names = [message.split(":")[0] for message in on_devices["refusals"]]
    assert names == ["sharding", "batch_size", "num_samples", "--mesh"]


def test_two_processes_agree_with_one_device(in_processes):
    for seen in in_processes:
        assert seen["values"] < ROUNDING
        assert seen["gradients"] < ROUNDING


def test_training_goes_on_across_layouts(in_processes, folder):
    # One device made a third of the steps, 8 devices of two processes the others. Adam divides gradients by their size,
    # so that rounding grows with the steps.
    for seen in in_processes:
        assert seen["calls"] == 3
        assert seen["training"] < 100 * ROUNDING
        assert seen["mesh"] == seen["again"] == "data=4,sample=2; processes=2"
    assert [path.name for path in folder.glob("pictures-*")] == ["pictures-0"]

    # And back onto one device.
    settings, data = program.TRAINING, images.load("digits", None)
    model = make_model(settings, pixel_mean=images.pixel_mean(data))
    plan = training.make_plan(settings, len(data.train))._replace(calls=3)
    shapes = jax.eval_shape(lambda: training.init_states(model, plan, jnp.arange(settings.seeds)))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    kept = folder / "parts" / settings.name() / "checkpoints"
    with checkpoints.opened(kept, stored.identity(settings.written(), data.name, data.checksum)) as found:
        restored, _ = found.restore(state)
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {state.calls.sharding}
    whole = program.read_numbers(folder / "whole.npz")
    assert program.difference((restored.params, restored.curves), whole) < 100 * ROUNDING


@pytest.mark.parametrize("text", ["sample", "data=0", "data=2,data=2", "rows=2", "data=2;sample=2"])
def test_a_mesh_that_makes_no_sense_is_refused(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text.split(",")[-1]))):
        layout.parse_mesh(text)
    with pytest.raises(SystemExit):
        vae.parse(["--mesh", text])
    assert "argument --mesh: expected" in capsys.readouterr().err


def test_processes_need_an_address_and_a_mesh(capsys):
    with pytest.raises(SystemExit):
        vae.parse(["--distributed"])
    assert "argument --distributed: needs --mesh" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--distributed: expected nothing, or HOST:PORT,COUNT,INDEX"):
        layout.join("localhost:7000,2")


def test_an_axis_that_is_left_out_has_size_one():
    mesh = layout.make_mesh(layout.parse_mesh("data=1"))
    assert layout.describe(mesh) == "data=1,sample=1; processes=1"


@pytest.mark.parametrize(
    ("size", "environment", "expected"),
    [
        ("2", {}, 2),
        ("100000", {}, 1),  # more than there are cores
        ("2", {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
    ],
)
def test_the_cores_of_a_cpu_become_devices(size, environment, expected):
    if expected == 2 and (os.cpu_count() or 1) < 2:
        pytest.skip("there is one core")
    program = (
        "import sys; from experiments.vae import layout; layout.split_cpu({'data': int(sys.argv[1])}); import jax; "
        "print(jax.device_count()); layout.split_cpu({'data': 1})"
    )
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", program, size]
    found = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    assert int(found.stdout) == expected


@pytest.mark.parametrize(
    ("sharding", "error", "message"),
    [
        (P("sample"), TypeError, "sharding: expected NamedSharding"),
        (P(), ValueError, "with the mesh axis of the samples"),
        (P(None, "sample"), ValueError, "with the mesh axis of the samples"),
        ("explicit", ValueError, "sharding: expected a mesh of Auto axes"),
    ],
)
def test_a_sharding_of_another_kind_is_refused(sharding, error, message):
    kind = AxisType.Explicit if sharding == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((1,), ("sample",), axis_types=(kind,))
    if error is ValueError:
        sharding = NamedSharding(mesh, P("sample") if sharding == "explicit" else sharding)
    with pytest.raises(error, match=message):
        hj.independent(lambda params, x: (x, x), num_samples=2, sharding=sharding)
