"""The PyTorch port computes the bound and the plain gradient of the library, and says so if it does not."""

import types

import numpy as np
import pytest

from benchmarks.overhead import contest as contests
from benchmarks.overhead import problem as overhead_problem
from benchmarks.overhead import timing
from benchmarks.overhead.tables import PORT

pytest.importorskip("torch", reason="the port needs PyTorch: pip install torch")
import torch

from benchmarks.overhead import torch_port

SIZES = overhead_problem.Sizes("conv", 12, 16)
OPTIONS = types.SimpleNamespace(batch_size=2, chunk_size=2, no_draw=False, rounds=1)
COMPILED = {}


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """The library's program, the same in all tests, is compiled once, and nothing is timed."""

    def compiled(objective, params, batch, *, chunk_size, draw, compiled=timing.compiled):
        if chunk_size not in COMPILED:
            COMPILED[chunk_size] = compiled(objective, params, batch, chunk_size=chunk_size, draw=draw)
        return COMPILED[chunk_size]

    monkeypatch.setattr(timing, "compiled", compiled)
    monkeypatch.setattr(timing, "take_turns", lambda calls, rounds: {name: [(1.0, 1.0)] for name in calls})


def test_the_port_gives_the_value_and_the_gradient_of_the_library():
    """The contest itself compares them, to 1e-5 and 1e-4, and raises."""
    result = contests.contest(SIZES, 2, OPTIONS)
    assert result["torch"] == torch.__version__
    assert result["ways"][PORT]["bytes"] > 2 * 2 * 784 * 4  # the logits at least


def test_a_port_of_another_decoder_is_refused(monkeypatch):
    decode = torch_port.decode
    monkeypatch.setattr(torch_port, "decode", lambda params, z: decode(params, z) + 0.01)
    with pytest.raises(RuntimeError, match="the port gives"):
        contests.contest(SIZES, 2, OPTIONS)


def test_a_port_without_the_gradient_of_the_encoder_is_refused(monkeypatch):
    encode = torch_port.encode
    monkeypatch.setattr(torch_port, "encode", lambda params, x: encode(params, x).detach())
    with pytest.raises(RuntimeError, match="gradients differ by"):
        contests.contest(SIZES, 2, OPTIONS)


def test_kernels_come_back_in_the_order_of_the_jax_model():
    """Also those of another number of axes, and zeros where the value does not depend on a parameter."""
    kernels = {"dense": np.arange(6.0).reshape(2, 3), "conv": np.arange(24.0).reshape(1, 2, 3, 4), "bias": np.ones(2)}
    params = torch_port.to_torch({**kernels, "unused": {"bias": np.ones(3)}})
    assert [tuple(leaf.shape) for leaf in torch_port.leaves(params)] == [(3, 2), (4, 3, 1, 2), (2,), (3,)]
    sum(torch.sum(params[name] ** 2) for name in kernels).backward()
    found = torch_port.gradients(params)
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(found[name], 2.0 * kernel)
    np.testing.assert_array_equal(found["unused"]["bias"], np.zeros(3))


def test_what_the_forward_pass_keeps_is_counted_once_and_without_parameters(monkeypatch):
    def mean_bound(params, x, noise, *, num_samples):
        units = torch.exp(torch.nn.functional.linear(x, params["kernel"]))  # keeps x, the kernel and the units
        return torch.sum(units * x[:, :1]) + torch.sum(noise**2)  # keeps x and the units again, and no noise

    monkeypatch.setattr(torch_port, "mean_bound", mean_bound)
    params = torch_port.to_torch({"kernel": np.ones((5, 7), np.float32)})
    x, noise = torch.ones(3, 5), torch.ones(3, 5)
    assert torch_port.kept_bytes(params, x, noise, num_samples=2) == 4 * (3 * 5 + 3 * 7)
