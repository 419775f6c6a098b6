"""No contestant is timed that computes another loss or gradient than it says."""

import functools

import jax
import numpy as np
import pytest
from scipy import special, stats

from benchmarks.peers import (
    command as peers,
)
from benchmarks.peers import (
    contestants as peer_list,
)
from benchmarks.peers import (
    measurement as peer_measurement,
)
from benchmarks.peers import (
    problem as peer_problem,
)
from benchmarks.peers.contestants import PEERS, REFERENCE
from benchmarks.peers.problem import Contestant, Evaluated

PROBLEM = peer_problem.make_problem(peer_problem.Sizes(batch=3, pixels=6, hidden=5, latent=2), 3)
NOISE = peer_problem.standard_noise(PROBLEM)
RULES = ("plain", "doubly_reparameterized", "squared", "weighted_mean")
RIVALS = ("numpyro", "tfp", "tfp-dreg", "torch", "pyro", "pythae")  # torch-compiled differs by its compiler alone

pytestmark = pytest.mark.usefixtures("as_a_script")


def log_weights(params, noise=NOISE, *, q=None):
    """[B, K], in double precision by SciPy; `q` are the parameters of the density that is divided by."""

    def mlp(layers, h):
        *hidden, last = layers
        for layer in hidden:
            h = np.tanh(h @ layer["kernel"] + layer["bias"])
        return h @ last["kernel"] + last["bias"]

    def encode(params):
        loc, raw = np.split(mlp(params["encoder"], PROBLEM.images.astype(np.float64))[:, None], 2, axis=-1)
        return loc, np.log1p(np.exp(raw)) + 1e-4

    loc, scale = encode(params)
    z = loc + scale * noise
    likelihood = stats.bernoulli(special.expit(mlp(params["decoder"], z))).logpmf(PROBLEM.images[:, None])
    posterior = stats.norm(*encode(params if q is None else q)).logpdf(z)
    return likelihood.sum(-1) + stats.norm.logpdf(z).sum(-1) - posterior.sum(-1)


def loss(params, rule, power=1):
    """The loss that the rule reports; `power` is that of its weights where the gradient is taken of."""
    log_w = log_weights(params)
    if rule == "plain":
        return np.mean(np.log(3.0) - special.logsumexp(log_w, axis=1))
    weights = special.softmax(log_weights(PROBLEM.params), axis=1) ** power
    stopped = log_weights(params, q=PROBLEM.params)
    return -np.mean(np.sum(weights * (log_w if power == 1 else stopped), axis=1))


def slope(part, *of):
    """Of that loss along the ones of a part of the parameters."""

    def moved(step):
        tree = jax.tree.map(np.float64, PROBLEM.params)
        return {**tree, part: jax.tree.map(lambda leaf: leaf + step, tree[part])}

    return (loss(moved(1e-5), *of) - loss(moved(-1e-5), *of)) / 2e-5


@pytest.mark.parametrize("rule", RULES)
def test_what_is_expected_is_what_the_rule_says(rule):
    value, gradient = peer_problem.expected(PROBLEM, NOISE, rule)
    assert value == pytest.approx(loss(PROBLEM.params, "weighted_mean" if rule == "weighted_mean" else "plain"))
    squared = {"doubly_reparameterized": ("encoder",), "squared": ("encoder", "decoder")}.get(rule, ())
    slopes = {part: sum(np.sum(leaf) for leaf in jax.tree.leaves(tree)) for part, tree in gradient.items()}
    wanted = {part: slope(part, "squared", 2) if part in squared else slope(part, "plain") for part in slopes}
    assert slopes == pytest.approx(wanted, rel=1e-4)


@functools.cache
def right(rule):
    return peer_problem.expected(PROBLEM, NOISE, rule)


def contestant(*, loss=1.0, encoder=0.0, decoder=0.0, rule="plain"):
    """Right up to a factor of the loss, and to a part of the gradient's norm in one leaf."""
    value, gradient = right(rule)
    gradient = jax.tree.map(np.array, gradient)
    for part, error in (("encoder", encoder), ("decoder", decoder)):
        norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient[part])))
        gradient[part][1]["bias"][0] += error * norm
    return Contestant(lambda calls: None, lambda: Evaluated(loss * value, gradient, NOISE))


def test_rounding_is_let_pass_and_reported():
    found = peer_measurement.deviations("hiwae", PROBLEM, contestant(loss=1 + 5e-6, encoder=6e-4, decoder=7e-4))
    assert found == pytest.approx({"loss": 5e-6, "encoder": 6e-4, "decoder": 7e-4}, rel=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": 1 + 2e-5}, r"loss is off by 2e-05 > 1e-05"),
        ({"loss": 1 - 2e-5}, r"loss is off by 2e-05 > 1e-05"),
        ({"loss": np.nan}, r"loss is off by nan > 1e-05"),
        ({"encoder": 2e-3}, r"encoder gradient is off by 0.002 > 0.001"),
        ({"decoder": 2e-3}, r"decoder gradient is off by 0.002 > 0.001"),
        ({"encoder": np.nan}, r"encoder gradient is off by nan > 0.001"),
        ({"rule": "doubly_reparameterized"}, r"encoder gradient is off by"),
        ({"rule": "weighted_mean"}, r"loss is off by"),
    ],
)
def test_what_is_not_rounding_is_refused_by_name(wrong, message):
    with pytest.raises(AssertionError, match=rf"^hiwae, K = 3: {message}"):
        peer_measurement.deviations("hiwae", PROBLEM, contestant(**wrong))


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.make == "peer_jax.make_hiwae"])
def test_a_row_of_ours_has_the_title_of_what_it_runs(name):
    title, settings = PEERS[name].title, PEERS[name].settings
    assert ("DReG" in title) == (settings["gradient"] == "doubly_reparameterized")
    assert ("chunks" in title) == settings.get("in_chunks", False)
    assert ("scanned" in title) == settings.get("scanned", False)


def test_a_run_with_a_wrong_contestant_times_nobody(monkeypatch, tmp_path):
    """It has the other gradient than its row says."""
    wrong = PEERS["hiwae"]._replace(settings={"gradient": "doubly_reparameterized"})
    monkeypatch.setitem(PEERS, "hiwae", wrong)

    def make(name, problem):
        return contestant() if name == REFERENCE else peer_list.make(name, problem)

    def timed(contestants, **options):
        pytest.fail("was timed")

    monkeypatch.setattr(peers, "make_problem", lambda options, num_samples: PROBLEM)
    monkeypatch.setattr(peer_measurement, "make", make)
    monkeypatch.setattr(peer_measurement, "interleaved", timed)
    arguments = ["--smoke", "--num-samples", "3", "--contestants", "hiwae", "--output", str(tmp_path)]
    with pytest.raises(AssertionError, match=r"^hiwae, K = 3: encoder gradient is off by"):
        peers.main([*arguments, "--figure", str(tmp_path / "peers.png")])
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]  # which keeps other processes out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_has_the_loss_and_the_gradient_of_its_rule(name, num_samples):
    missing = peer_list.why_missing(name)
    if missing is not None:
        pytest.skip(missing)
    problem = peer_problem.make_problem(PROBLEM.sizes, num_samples)
    found = peer_measurement.deviations(name, problem, peer_list.make(name, problem))
    assert found.keys() == {"loss", "encoder", "decoder"}
