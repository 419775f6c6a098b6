"""Training as a few compiled calls: each runs whole epochs, and the state between calls is all there is to save."""

import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from tqdm import tqdm

import hiwae_jax as hj
from experiments.models import Model
from experiments.settings import Settings
from hiwae_jax.data import Dataset, unpack_bits

STEPS_A_CALL = 500
SECONDS_BETWEEN_CHECKPOINTS = 60.0
MONITORED_EXAMPLES = 2_000  # of the training and of the validation set; more would cost as much as the steps
CURVES = ("step", "objective", "train_bound", "validation_bound", "effective_sample_size")


class State(NamedTuple):
    """Everything that training continues from.

    Attributes:
      params: the parameters.
      optimizer: the optimizer's state.
      average: Polyak average of the parameters.
      best: the average with the best validation bound so far.
      best_bound: that bound.
      curves: [calls, len(CURVES)], filled up to the calls done.
      calls: compiled calls done.
    """

    params: Any
    optimizer: Any
    average: Any
    best: Any
    best_bound: jax.Array
    curves: jax.Array
    calls: jax.Array


class Plan(NamedTuple):
    """How steps divide into epochs and compiled calls."""

    steps_an_epoch: int
    epochs_a_call: int
    calls: int

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.calls * self.epochs_a_call * self.steps_an_epoch


def make_plan(settings: Settings, num_examples: int) -> Plan:
    """Whole epochs a call, whole calls: at least `settings.steps` steps."""
    if settings.batch_size > num_examples:
        raise ValueError(
            f"batch_size: expected at most the {num_examples} training examples, got {settings.batch_size}"
        )
    steps_an_epoch = num_examples // settings.batch_size
    epochs_a_call = max(1, min(STEPS_A_CALL, settings.steps) // steps_an_epoch)
    calls = -(-settings.steps // (epochs_a_call * steps_an_epoch))
    return Plan(steps_an_epoch, epochs_a_call, calls)


def make_optimizer(settings: Settings, steps: int) -> optax.GradientTransformation:
    """Clipped Adam; constant learning rate for the first half, then a cosine down to a hundredth."""
    schedule = optax.join_schedules(
        [
            optax.constant_schedule(settings.learning_rate),
            optax.cosine_decay_schedule(settings.learning_rate, max(1, steps - steps // 2), alpha=0.01),
        ],
        [steps // 2],
    )
    return optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(schedule))


def make_run_call(model: Model, settings: Settings, plan: Plan, num_pixels: int) -> Callable[..., Any]:
    """One compiled call: `(state, train [N, bytes], monitored_train, validation) -> state`."""
    objective = hj.make_annealed_objective(
        model.log_likelihood,
        model.log_prior,
        model.proposal,
        weighting=model.weighting,
        gradient=settings.gradient,
        free_bits=settings.free_bits,
    )
    log_weights = hj.make_log_weights(model.log_joint, model.proposal, weighting=model.weighting)
    optimizer = make_optimizer(settings, plan.steps)

    def loss(params, x, keys, beta):
        return -jnp.mean(jax.vmap(objective, in_axes=(None, 0, 0, None))(params, x, keys, beta))

    def step(carry, batch):
        params, opt_state, average = carry
        packed, index, key = batch
        x = unpack_bits(packed, num_pixels=num_pixels)
        progress = (index + 1).astype(jnp.float32) / max(settings.warmup, 1)
        beta = jnp.clip(progress, 1e-4, 1.0) if settings.warmup else jnp.float32(1.0)
        value, gradient = jax.value_and_grad(loss)(params, x, jax.random.split(key, len(x)), beta)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        # The decay is shortened at the start, so that the random initialisation is forgotten.
        decay = jnp.minimum(settings.polyak, (index + 1).astype(jnp.float32) / (index + 10).astype(jnp.float32))
        average = optax.incremental_update(params, average, 1.0 - decay)
        return (params, opt_state, average), -value

    def bounds(params, packed, key):
        x = unpack_bits(packed, num_pixels=num_pixels)
        log_w = jax.vmap(log_weights, in_axes=(None, 0, 0))(params, x, jax.random.split(key, len(x)))
        return jax.nn.logsumexp(log_w, axis=-1), hj.effective_sample_size(log_w)

    def run_call(state: State, train, monitored_train, validation) -> State:
        call_key = jax.random.fold_in(jax.random.key(settings.seed), state.calls)

        def epoch(carry, number):
            index = state.calls * plan.epochs_a_call + number
            order_key, noise_key = jax.random.split(jax.random.fold_in(call_key, number))
            order = jax.random.permutation(order_key, len(train))[: plan.steps_an_epoch * settings.batch_size]
            batches = (
                train[order].reshape(plan.steps_an_epoch, settings.batch_size, -1),
                index * plan.steps_an_epoch + jnp.arange(plan.steps_an_epoch),
                jax.random.split(noise_key, plan.steps_an_epoch),
            )
            return jax.lax.scan(step, carry, batches)

        carry = (state.params, state.optimizer, state.average)
        (params, opt_state, average), values = jax.lax.scan(epoch, carry, jnp.arange(plan.epochs_a_call))
        # The same noise at every call: the curves show the parameters' change alone.
        monitored = jnp.concatenate([monitored_train, validation])
        bound, ess = bounds(average, monitored, jax.random.key(settings.seed + 1))
        train_bound = jnp.mean(bound[: len(monitored_train)])
        validation_bound = jnp.mean(bound[len(monitored_train) :])
        done = (state.calls + 1) * plan.epochs_a_call * plan.steps_an_epoch
        row = jnp.stack([done.astype(jnp.float32), jnp.mean(values[-1]), train_bound, validation_bound, jnp.mean(ess)])
        better = validation_bound > state.best_bound
        return State(
            params=params,
            optimizer=opt_state,
            average=average,
            best=jax.tree.map(lambda new, old: jnp.where(better, new, old), average, state.best),
            best_bound=jnp.where(better, validation_bound, state.best_bound),
            curves=state.curves.at[state.calls].set(row),
            calls=state.calls + 1,
        )

    return jax.jit(run_call, donate_argnums=0)


def train(model: Model, settings: Settings, data: Dataset, folder: pathlib.Path) -> State:
    """Train to the end, from the newest checkpoint in `folder` if there is one."""
    plan = make_plan(settings, len(data.train))
    run_call = make_run_call(model, settings, plan, data.shape[0] * data.shape[1])
    state = State(
        params=model.params,
        optimizer=make_optimizer(settings, plan.steps).init(model.params),
        average=jax.tree.map(jnp.copy, model.params),
        best=jax.tree.map(jnp.copy, model.params),
        best_bound=jnp.float32(-jnp.inf),
        curves=jnp.zeros((plan.calls, len(CURVES))),
        calls=jnp.int32(0),
    )
    monitored = data.train[:MONITORED_EXAMPLES], data.validation[:MONITORED_EXAMPLES]
    arrays = jax.tree.map(jnp.asarray, (data.train, *monitored))
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
    with ocp.CheckpointManager((folder / "checkpoints").absolute(), options=options) as manager:
        if manager.latest_step() is not None:
            shape = jax.eval_shape(lambda: state)
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(shape))
        first, saved_at = int(state.calls), time.monotonic()
        steps_a_call = plan.epochs_a_call * plan.steps_an_epoch
        progress = tqdm(total=plan.steps, initial=first * steps_a_call, unit="step", desc=settings.model)
        for call in range(first, plan.calls):
            state = run_call(state, *arrays)
            row = dict(zip(CURVES, map(float, state.curves[call]), strict=True))
            if row["objective"] != row["objective"]:
                raise FloatingPointError(
                    f"{settings.model}: the objective is NaN at step {row['step']:.0f}; lower the learning rate or clip"
                )
            progress.set_postfix(bound=f"{row['validation_bound']:.2f}", ess=f"{row['effective_sample_size']:.2f}")
            progress.update(steps_a_call)
            if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS or call == plan.calls - 1:
                manager.save(call + 1, args=ocp.args.StandardSave(state))
                manager.wait_until_finished()
                saved_at = time.monotonic()
        progress.close()
    return state
