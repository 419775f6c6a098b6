"""The contest with PyTorch has figures only if both sides compute the same, and they are relative to the port."""

import sys
import types

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.overhead import contest as contests
from benchmarks.overhead import problem as overhead_problem
from benchmarks.overhead import timing
from benchmarks.overhead.tables import AT_ONCE, DISPATCHED, ONE_PROGRAM, PLAIN, PORT

OPTIONS = types.SimpleNamespace(batch_size=3, chunk_size=1, no_draw=False, rounds=3)
SECONDS = {  # CPU and wall-clock, by round
    ONE_PROGRAM: [(3.0, 2.0), (20.0, 20.0), (1.0, 3.0)],
    DISPATCHED: [(4.0, 4.0)] * 3,
    AT_ONCE: [(6.0, 4.0)] * 3,
    PORT: [(1.0, 1.0), (10.0, 10.0), (2.0, 2.0)],
}


@pytest.fixture
def contest(monkeypatch):
    """The contest with a port that is told what to say: the value, and the factor by which a part's gradient is off.

    The library's value is -5, and its gradient the parameters.
    """

    def make_problem(sizes, method, num_samples):
        assert (method.alpha, method.gradient, num_samples) == (1.0, PLAIN, 2)
        params = nnx.State({"base": {"bias": np.ones(3)}, "encoder": {"kernel": np.full((2, 2), 5.0)}})
        return overhead_problem.Problem(params, bound, parts={})

    def bound(params, x, drawn):
        """Not evaluated: the seconds are made up."""

    bound.draw = lambda params, x, key: None

    def run(*, value=-5.0, factor=1.0):
        asked = {}

        def compiled(objective, params, batch, *, chunk_size, draw):
            assert draw is objective.draw
            return lambda: (np.float32(-5.0), params), {"temp_bytes": 100 * chunk_size}

        def value_and_grad(params, x, noise, *, num_samples):
            asked.update(x=x.shape, noise=noise, num_samples=num_samples)
            return value

        def gradients(params):
            return {**params, "base": {"bias": factor * params["base"]["bias"]}}

        def take_turns(calls, rounds):
            assert set(calls) == set(SECONDS)
            assert rounds == 3
            return SECONDS

        port = {"value_and_grad": value_and_grad, "gradients": gradients, "to_torch": lambda params, *, device: params}
        port["kept_bytes"] = lambda params, x, noise, *, num_samples: 7
        torch = {
            "set_num_threads": lambda threads: None,
            "tensor": lambda array, *, device: np.array(array),
            "__version__": "9.9",
        }
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(**torch))
        monkeypatch.setattr("benchmarks.overhead.torch_port", types.SimpleNamespace(**port), raising=False)
        monkeypatch.setattr(timing, "compiled", compiled)
        monkeypatch.setattr(timing, "take_turns", take_turns)
        monkeypatch.setattr(overhead_problem, "make_problem", make_problem)
        return contests.contest(overhead_problem.Sizes("conv", 5, 6, latent=4), 2, OPTIONS), asked

    return run


def test_ratios_are_to_the_port_within_rounds(contest):
    result, _ = contest(value=-5.00004, factor=1.00005)
    assert (result["nets"], result["num_samples"], result["torch"]) == ("conv 5/6", 2, "9.9")
    ways = result["ways"]
    assert ways[ONE_PROGRAM]["cpu"] == pytest.approx([2.0, 1.25, 2.5])
    assert ways[ONE_PROGRAM]["wall"] == pytest.approx([2.0, 1.75, 2.0])
    assert (ways[ONE_PROGRAM]["cpu_ms"], ways[ONE_PROGRAM]["wall_ms"]) == (3_000.0, 3_000.0)
    assert ways[PORT]["cpu"] == [1.0] * 3
    assert {name: way["bytes"] for name, way in ways.items()} == {
        ONE_PROGRAM: 100,
        DISPATCHED: None,
        AT_ONCE: 300,
        PORT: 7,
    }


def test_the_port_is_handed_the_noise_that_the_bound_draws(contest):
    _, asked = contest()
    assert (asked["x"], asked["num_samples"]) == ((3, 784), 2)
    keys = jax.random.split(jax.random.key(2), 3)
    expected = [jax.random.normal(key, (4 + 2 * 4,)) for key in keys]
    np.testing.assert_array_equal(asked["noise"], expected)


@pytest.mark.parametrize(
    "wrong", [{"value": -5.0001}, {"value": -4.9999}, {"factor": -1.0}, {"factor": 1.001}, {"value": float("nan")}]
)
def test_a_port_that_computes_something_else_has_no_figures(contest, wrong):
    with pytest.raises(RuntimeError, match=r"the port gives (-\d.*|nan), the library -5.0; gradients differ by \d"):
        contest(**wrong)


def test_on_a_gpu_the_port_needs_a_pytorch_that_runs_there(monkeypatch):
    cuda = types.SimpleNamespace(is_available=lambda: has_cuda)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda, __version__="9.9", __spec__=True))
    assert contests.why_missing() is None  # on this CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    has_cuda = False
    assert contests.why_missing() == "JAX runs on a gpu here, and torch 9.9 cannot: the PyTorch port is left out"
    has_cuda = True
    assert contests.why_missing() is None
