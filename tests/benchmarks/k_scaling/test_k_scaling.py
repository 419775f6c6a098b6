"""What the K-scaling benchmark counts, and that its parts fit together."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks.k_scaling import cells
from benchmarks.k_scaling import command as k_scaling
from experiments.shared.networks import Networks


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
