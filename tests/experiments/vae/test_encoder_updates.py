"""Several updates of the encoder in a minibatch: what they move, by ours and by the released code's rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vae import command as vae
from experiments.vae import images, optimizer
from experiments.vae.minibatches import Minibatch
from experiments.vae.models import Params, make_model
from experiments.vae.settings import Settings, from_json
from experiments.vae.training_step import Carry, make_step

SETTINGS = Settings(
    model="hiwae-1", num_samples=2, latent=2, hidden=(8,), proposal_hidden=4, batch_size=8, encoder_updates=2, warmup=0
)


class Sum:
    """The sum of all parameters: a step of Adam raises each by the learning rate, but for what clipping changes."""

    def draw(self, params, x, key, beta):
        """Nothing is random."""
        return key

    def __call__(self, params, x, drawn, beta):
        """The sum."""
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("twice", "of_reverse"), [("encoder", 1), ("proposal", 2)])
def test_the_released_rule_moves_the_reverse_model_once_in_a_minibatch(twice, of_reverse, digits):
    settings = SETTINGS._replace(twice=twice).check()
    model = make_model(settings, pixel_mean=images.pixel_mean(digits))
    step = make_step(Sum(), settings, images.make_pixels(digits), steps=100)
    params = model.init(jax.random.key(0))
    carry = Carry(params, Params(*map(optimizer.init, params)), params)
    minibatch = Minibatch(jnp.asarray(digits.train[:8]), jnp.int32(0), jax.random.key(1))
    after = jax.jit(step)(carry, minibatch)[0].params
    moved = jax.tree.map(lambda new, old: (new - old) / settings.learning_rate, after, params)
    moved = {name: jax.tree.leaves(part[name]) for part in moved for name in part}
    updates = {"encoder": 2, "base": 2, "conditionals": 2, "reverse": of_reverse, "decoder": 1}
    assert moved.keys() == updates.keys()
    for name, count in updates.items():
        for leaf in moved[name]:
            np.testing.assert_allclose(leaf, count, atol=0.05, err_msg=name)


def test_the_names_of_runs_without_the_option_are_those_of_before_it():
    # Folders and results of these names exist.
    assert Settings().name() == "digits-mlp-iwae-K5-a9f50442"
    settings = SETTINGS._replace(twice="encoder").check()
    assert settings.name() != SETTINGS.name()
    assert "twice" not in SETTINGS.written()
    assert from_json(SETTINGS.written()) == SETTINGS
    assert from_json(settings.written()) == settings


def test_the_rule_is_chosen_where_it_says_something():
    cells = vae.cells(
        vae.parse(["--model", "iwae", "hiwae-1", "--encoder-updates", "1", "2", "--twice", "encoder", "proposal"])
    )
    assert [(cell.model, cell.encoder_updates, cell.twice) for cell in cells] == [
        ("iwae", 1, "proposal"),
        ("iwae", 2, "proposal"),
        ("hiwae-1", 1, "proposal"),
        ("hiwae-1", 2, "encoder"),
        ("hiwae-1", 2, "proposal"),
    ]
    with pytest.raises(ValueError, match='twice: "encoder" is for several updates in a minibatch; set encoder_updates'):
        SETTINGS._replace(encoder_updates=1, twice="encoder").check()
    with pytest.raises(ValueError, match="twice: expected one of proposal, encoder, got 'decoder'"):
        SETTINGS._replace(twice="decoder").check()
