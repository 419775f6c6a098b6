"""How examples divide into minibatches, and that every epoch of every call and seed has an order of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vae.minibatches import Plan, epoch_of, make_plan

EXAMPLES = np.arange(23, dtype=np.uint8)[:, None] * np.ones(3, np.uint8)  # each row three times its own number
PLAN = Plan(batch_size=5, steps_an_epoch=4, epochs_a_call=2, calls=3, patience=3)


@pytest.mark.parametrize(
    ("steps", "steps_a_call", "batch_size", "patience", "expected"),
    [
        # 1,297 examples: 20 minibatches of 64 an epoch, 25 epochs a call; 2,000 steps are 4 calls, 2,001 are 5.
        (2_000, 500, 64, 0, Plan(64, 20, 25, 4, patience=4)),
        (2_001, 500, 64, 0, Plan(64, 20, 25, 5, patience=5)),
        (2_000, 500, 64, 70, Plan(64, 20, 25, 4, patience=3)),  # 70 epochs are 2.8 calls
        (2_000, 500, 64, 25, Plan(64, 20, 25, 4, patience=1)),
        (30, 500, 64, 0, Plan(64, 20, 1, 2, patience=2)),  # whole epochs: 40 steps
        (3, 1, 1_297, 0, Plan(1_297, 1, 1, 3, patience=3)),
        (3, 2, 600, 0, Plan(600, 2, 1, 2, patience=2)),
    ],
)
def test_whole_epochs_and_whole_calls(steps, steps_a_call, batch_size, patience, expected):
    plan = make_plan(
        steps=steps, steps_a_call=steps_a_call, batch_size=batch_size, patience=patience, num_examples=1_297
    )
    assert plan == expected
    assert plan.steps_a_call == plan.steps_an_epoch * plan.epochs_a_call
    assert steps <= plan.steps == plan.calls * plan.steps_a_call < steps + plan.steps_a_call


@jax.jit
def epoch(seed, call, number):
    call_key = jax.random.fold_in(jax.random.key(seed), call)
    return epoch_of(jnp.asarray(EXAMPLES), call_key, call=call, number=number, plan=PLAN)


def test_an_epoch_has_most_examples_once_in_an_order_of_its_own():
    orders, keys = [], []
    for seed in range(2):
        for call in range(2):
            for number in range(2):
                minibatches = epoch(seed, call, number)
                rows = np.asarray(minibatches.rows)
                assert rows.shape == (4, 5, 3)
                assert np.all(rows == rows[..., :1])
                order = rows[..., 0].ravel()
                assert len(set(order.tolist())) == 20  # no example twice
                assert not np.array_equal(order, np.sort(order))
                orders.append(tuple(order.tolist()))
                keys += [tuple(key) for key in jax.random.key_data(minibatches.key).tolist()]
                first = (2 * call + number) * 4
                np.testing.assert_array_equal(minibatches.step, first + np.arange(4))
    assert len(set(orders)) == 8
    assert len({frozenset(order) for order in orders}) > 1  # others sit out
    assert len(set(keys)) == 32
