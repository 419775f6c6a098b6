"""Training as a few compiled calls, each of whole epochs of all seeds; the state between calls is all there is."""

import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from tqdm import tqdm

import hiwae_jax as hj
from experiments import images, layout
from experiments.models import Model, Params
from experiments.settings import Settings

STEPS_A_CALL = 500
SECONDS_BETWEEN_CHECKPOINTS = 60.0
CHECKPOINT_FILE_BYTES = 8 * 2**20  # large single files are a burden to move
MONITORED_EXAMPLES = 2_000  # of the training and of the validation set; more would cost as much as the steps
CURVES = ("step", "objective", "train_bound", "validation_bound", "effective_sample_size")


class State(NamedTuple):
    """Everything that training of one seed continues from; in training, each leaf has a leading axis of seeds.

    Attributes:
      params: the parameters.
      optimizer: Adam's state of either part of the parameters.
      average: Polyak average of the parameters.
      best: the average with the best validation bound so far.
      best_bound: that bound.
      stale: calls since it was found.
      curves: [calls, len(CURVES)], filled up to the calls done.
      calls: compiled calls done.
    """

    params: Params
    optimizer: Params
    average: Params
    best: Params
    best_bound: jax.Array
    stale: jax.Array
    curves: jax.Array
    calls: jax.Array


class Trained(NamedTuple):
    """What training came to.

    Attributes:
      state: with a leading axis of seeds.
      seconds: of training, all pieces together, compilation included.
      finished: false if the time limit came first; the same call goes on.
    """

    state: State
    seconds: float
    finished: bool


class Plan(NamedTuple):
    """How steps divide into epochs and compiled calls."""

    steps_an_epoch: int
    epochs_a_call: int
    calls: int
    patience: int

    @property
    def steps_a_call(self) -> int:
        """Minibatches of one compiled call."""
        return self.epochs_a_call * self.steps_an_epoch

    @property
    def steps(self) -> int:
        """Minibatches in all."""
        return self.calls * self.steps_a_call


def make_plan(settings: Settings, num_examples: int) -> Plan:
    """Whole epochs a call, whole calls: at least `settings.steps` steps."""
    if settings.batch_size > num_examples:
        raise ValueError(
            f"batch_size: expected at most the {num_examples} training examples, got {settings.batch_size}"
        )
    steps_an_epoch = num_examples // settings.batch_size
    epochs_a_call = max(1, min(STEPS_A_CALL, settings.steps) // steps_an_epoch)
    calls = -(-settings.steps // (epochs_a_call * steps_an_epoch))
    return Plan(steps_an_epoch, epochs_a_call, calls, patience=-(-settings.patience // epochs_a_call) or calls)


def make_schedule(settings: Settings, steps: int) -> optax.Schedule:
    """The learning rate by step."""
    if settings.schedule == "constant":
        return optax.constant_schedule(settings.learning_rate)
    return optax.join_schedules(
        [
            optax.constant_schedule(settings.learning_rate),
            optax.cosine_decay_schedule(settings.learning_rate, max(1, steps - steps // 2), alpha=0.01),
        ],
        [steps // 2],
    )


def make_objective(model: Model, settings: Settings) -> Callable[..., Any]:
    """`(params, x, key, beta) -> scalar`, to be maximised; a ValueError if the gradient is not valid for the model."""
    return hj.make_annealed_objective(
        model.log_likelihood,
        model.log_prior,
        model.proposal,
        weighting=model.weighting,
        gradient=settings.gradient,
        free_bits=settings.free_bits,
    )


def init_states(model: Model, plan: Plan, seeds: Any) -> State:
    """The state of each seed [S] before the first step."""
    # One seed after another: under vmap a seed's parameters would depend on how many seeds there are. Only what is
    # drawn goes through the loop, which takes its time to compile.
    params = jax.lax.map(lambda seed: model.init(jax.random.key(seed)), seeds)
    return jax.vmap(lambda params: _state_of(params, plan))(params)


def _state_of(params: Params, plan: Plan) -> State:
    adam = optax.scale_by_adam()
    return State(
        params=params,
        optimizer=Params(*map(adam.init, params)),
        average=params,
        best=params,
        best_bound=jnp.float32(-jnp.inf),
        stale=jnp.int32(0),
        curves=jnp.zeros((plan.calls, len(CURVES))),
        calls=jnp.int32(0),
    )


def make_run_call(
    model: Model,
    settings: Settings,
    plan: Plan,
    pixels: Callable[..., Any],
    *,
    in_turn: bool = False,
    mesh: Mesh | None = None,
) -> Callable[..., Any]:
    """One compiled call of all seeds: `(seeds [S], state, train [N, bytes], monitored_train, validation) -> state`.

    The seeds are vectorised, or run `in_turn`: less memory and, where the device is full with one, no slower. On a mesh
    each batch lies over its axis `data`; state and data sets are whole on every device.
    """
    objective = make_objective(model, settings)
    log_weights = model.log_weights()
    clip, adam = optax.clip_by_global_norm(settings.clip), optax.scale_by_adam()
    schedule = make_schedule(settings, plan.steps)

    def loss(params, x, drawn, beta):
        return -objective(params, x, drawn, beta)

    def of_inference(function):
        return lambda inference, x, given, params, beta: function(params._replace(inference=inference), x, given, beta)

    def over_batch(loss, draw):
        # On one device as many examples at once as suit it; on a mesh all of them, each device its own.
        at_once = None if mesh is None else settings.batch_size
        return hj.batched_value_and_grad(loss, draw=draw, chunk_size=at_once, spmd_axis_name=layout.batch_axis(mesh))

    value_and_grad = over_batch(loss, objective.draw)
    inference_value_and_grad = over_batch(of_inference(loss), of_inference(objective.draw))

    def descend(params, opt_state, gradient, rate):
        direction, opt_state = adam.update(gradient, opt_state)
        return optax.apply_updates(params, optax.tree.scale(-rate, direction)), opt_state

    def step(carry, batch):
        params, opt_state, average = carry
        rows, index, key = batch
        pixel_key, *noise_keys = jax.random.split(key, 1 + settings.encoder_updates)
        x = layout.split(mesh, pixels(rows, pixel_key))
        progress = (index + 1).astype(jnp.float32) / max(settings.warmup, 1)
        beta = jnp.clip(progress, 1e-4, 1.0) if settings.warmup else jnp.float32(1.0)
        rate = schedule(index)
        for noise_key in noise_keys[:-1]:
            _, gradient = inference_value_and_grad(params.inference, x, noise_key, params, beta)
            clipped, _ = clip.update(gradient, optax.EmptyState())
            inference, state = descend(params.inference, opt_state.inference, clipped, rate)
            params, opt_state = params._replace(inference=inference), opt_state._replace(inference=state)
        value, gradient = value_and_grad(params, x, noise_keys[-1], beta)
        clipped, _ = clip.update(gradient, optax.EmptyState())
        updated = [descend(*part, rate) for part in zip(params, opt_state, clipped, strict=True)]
        params, opt_state = (Params(*parts) for parts in zip(*updated, strict=True))
        # The decay is shortened at the start, so that the random initialisation is forgotten.
        decay = jnp.minimum(settings.polyak, (index + 1).astype(jnp.float32) / (index + 10).astype(jnp.float32))
        average = optax.incremental_update(params, average, 1.0 - decay)
        return (params, opt_state, average), -value

    def bounds(params, rows):
        # The same noise and pixels at every call: the curves show the parameters' change alone.
        pixel_key, noise_key = jax.random.split(jax.random.key(1))
        keys, x = layout.split(mesh, (jax.random.split(noise_key, len(rows)), pixels(rows, pixel_key)))
        log_w = jax.vmap(log_weights, in_axes=(None, 0, 0), spmd_axis_name=layout.batch_axis(mesh))(params, x, keys)
        return jax.nn.logsumexp(log_w, axis=-1), hj.effective_sample_size(log_w)

    def run_call(seed, state: State, train, monitored_train, validation) -> State:
        call_key = jax.random.fold_in(jax.random.key(seed), state.calls)

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
        bound, ess = bounds(average, jnp.concatenate([monitored_train, validation]))
        train_bound = jnp.mean(bound[: len(monitored_train)])
        validation_bound = jnp.mean(bound[len(monitored_train) :])
        done = (state.calls + 1) * plan.steps_a_call
        row = jnp.stack([done.astype(jnp.float32), jnp.mean(values[-1]), train_bound, validation_bound, jnp.mean(ess)])
        # A seed out of patience runs on beside the others, but what it finds no longer counts.
        better = (validation_bound > state.best_bound) & (state.stale < plan.patience)
        return State(
            params=params,
            optimizer=opt_state,
            average=average,
            best=jax.tree.map(lambda new, old: jnp.where(better, new, old), average, state.best),
            best_bound=jnp.where(better, validation_bound, state.best_bound),
            stale=jnp.where(better, 0, state.stale + 1),
            curves=state.curves.at[state.calls].set(row),
            calls=state.calls + 1,
        )

    def run_all(seeds, state, *arrays):
        if in_turn:
            return jax.lax.map(lambda one: run_call(*one, *arrays), (seeds, state))
        return jax.vmap(lambda seed, state: run_call(seed, state, *arrays))(seeds, state)

    # On a CPU the program runs as fast with LLVM's first level of optimization, and is compiled in four fifths of the
    # time.
    less = jax.default_backend() == "cpu" and not jax.config.values["jax_disable_most_optimizations"]
    options = {"xla_backend_optimization_level": 1} if less else None
    return jax.jit(run_all, donate_argnums=1, out_shardings=layout.over(mesh), compiler_options=options)


def train(
    model: Model,
    settings: Settings,
    data: images.AnyDataset,
    folder: pathlib.Path,
    *,
    in_turn: bool = False,
    mesh: Mesh | None = None,
    deadline: float | None = None,
    log: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> Trained:
    """Train all seeds to the end, from the newest checkpoint in `folder` if there is one.

    Args:
      model: the model of `settings`.
      settings: the cell.
      data: its data set.
      folder: where checkpoints are kept.
      in_turn: see `make_run_call`.
      mesh: likewise, with the model's samples over its axis `sample`. A checkpoint goes on on any other mesh.
      deadline: of `time.monotonic()`; no compiled call is begun that would probably end after it.
      log: called after each compiled call with a dict by `CURVES` of arrays [seeds].

    Raises:
      FloatingPointError: objective or bounds are not finite; the message names seed and step.
    """
    began = time.monotonic()
    plan = make_plan(settings, len(data.train))
    run_call = make_run_call(model, settings, plan, images.make_pixels(data), in_turn=in_turn, mesh=mesh)
    seeds = layout.whole(mesh, jnp.arange(settings.seeds))
    state = jax.jit(lambda seeds: init_states(model, plan, seeds), out_shardings=layout.over(mesh))(seeds)
    monitored = [images.spread(split, MONITORED_EXAMPLES) for split in (data.train, data.validation)]
    arrays = layout.whole(mesh, jax.tree.map(jnp.asarray, (data.train, *monitored)))
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
    with ocp.CheckpointManager((folder / "checkpoints").absolute(), options=options) as manager:
        before, newest = 0.0, manager.latest_step()
        if newest is not None:
            state, before = _restore(manager, newest, state)

        def seconds() -> float:
            return before + time.monotonic() - began

        first = int(state.calls[0])
        saved_at, longest = time.monotonic(), 0.0
        finished = first == plan.calls or bool(np.all(state.stale >= plan.patience))
        with tqdm(
            total=plan.steps,
            initial=first * plan.steps_a_call,
            unit="step",
            desc=settings.name(),
            disable=not layout.is_first(),
        ) as progress:
            for call in range(first, plan.calls):
                if finished or layout.agreed(deadline is not None and time.monotonic() + longest > deadline):
                    break
                call_began = time.monotonic()
                state = run_call(seeds, state, *arrays)
                row = dict(zip(CURVES, np.asarray(state.curves[:, call]).T, strict=True))
                if call > first:  # the first one compiles
                    longest = max(longest, time.monotonic() - call_began)
                diverged = ~np.all(np.isfinite([*row.values()]), axis=0)
                if np.any(diverged):
                    raise FloatingPointError(
                        f"{settings.name()}: the objective of seed {np.argmax(diverged)} is not finite at step "
                        f"{row['step'][0]:.0f}; lower the learning rate or clip"
                    )
                bound, ess = row["validation_bound"].mean(), row["effective_sample_size"].mean()
                progress.set_postfix(bound=f"{bound:.2f}", ess=f"{ess:.2f}")
                progress.update(plan.steps_a_call)
                if log is not None:
                    log(row)
                finished = call == plan.calls - 1 or bool(np.all(state.stale >= plan.patience))
                if finished or layout.agreed(time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS):
                    _save(manager, call + 1, state, seconds())
                    saved_at = time.monotonic()
            done = int(state.calls[0])
            if not finished and done > first and manager.latest_step() != done:
                _save(manager, done, state, seconds())
        return Trained(state, seconds(), finished)


def _save(manager: ocp.CheckpointManager, step: int, state: State, seconds: float) -> None:
    content = {"state": state, "seconds": np.float64(seconds)}
    chunks = jax.tree.map(lambda leaf: ocp.SaveArgs(chunk_byte_size=CHECKPOINT_FILE_BYTES), content)
    manager.save(step, args=ocp.args.PyTreeSave(content, chunks, ocdbt_target_data_file_size=CHECKPOINT_FILE_BYTES))
    if jax.default_backend() == "cpu":  # there the arrays are not copied first, and the next call overwrites them
        manager.wait_until_finished()


def _restore(manager: ocp.CheckpointManager, step: int, state: State) -> tuple[State, float]:
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    target = {"state": shapes, "seconds": np.float64(0.0)}
    how = ocp.checkpoint_utils.construct_restore_args(target)
    content = manager.restore(step, args=ocp.args.PyTreeRestore(target, restore_args=how))
    return content["state"], float(content["seconds"])
