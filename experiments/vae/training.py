"""Training as a few compiled calls, each of whole epochs of all seeds. Only the state lives between calls."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

import hiwae_jax as hj
from experiments.shared import run_folder, stored
from experiments.vae import checkpoints, compiling, divergence, early_stopping, images, layout, minibatches, optimizer
from experiments.vae.early_stopping import Best
from experiments.vae.minibatches import Plan, epoch_of
from experiments.vae.models import Model, Params, of_one
from experiments.vae.monitoring import make_monitor
from experiments.vae.settings import Settings
from experiments.vae.training_step import Carry, Objective, make_step

STEPS_A_CALL = 500
SECONDS_BETWEEN_CHECKPOINTS = 60.0
MONITORED_EXAMPLES = 2_000  # of each of the two sets; more of them would take as much time as the steps
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
    """The end of training, or of a piece of it.

    Attributes:
      state: with a leading axis of seeds.
      seconds: of training, all pieces together, compilation included.
      finished: false if the time limit came first; the same call goes on.
    """

    state: State
    seconds: float
    finished: bool


def make_plan(settings: Settings, num_examples: int) -> Plan:
    """How the steps of `settings` divide; see `minibatches.make_plan`."""
    return minibatches.make_plan(
        steps=settings.steps,
        steps_a_call=STEPS_A_CALL,
        batch_size=settings.batch_size,
        patience=settings.patience,
        num_examples=num_examples,
    )


def make_objective(model: Model, settings: Settings) -> Objective:
    """`(params, x, key, beta) -> scalar`, to be maximised; a ValueError if the gradient is not valid for the model."""
    return hj.make_annealed_objective(
        model.log_likelihood,
        model.log_prior,
        model.proposal,
        weighting=model.weighting,
        gradient=settings.gradient,
        free_bits=settings.free_bits,
    )


def init_states(model: Model, plan: Plan, seeds: jax.Array) -> State:
    """The state of each seed [S] before the first step."""
    # One seed after another: under vmap a seed's parameters would depend on how many seeds there are. Only the
    # random numbers go through the loop, because a loop takes long to compile.
    params = jax.lax.map(lambda seed: model.init(jax.random.key(seed)), seeds)
    return jax.vmap(lambda params: _state_of(params, plan))(params)


class Programs(NamedTuple):
    """The compiled functions of training, which compile at their first call unless they are `compiled` before.

    Attributes:
      first_state: `seeds [S] -> state`.
      call: of `make_run_call`.
    """

    first_state: Callable[..., State]
    call: Callable[..., State]

    def state_shapes(self, settings: Settings) -> State:
        """The shapes of the state, from functions that are not compiled yet."""
        found: State = jax.eval_shape(self.first_state, jnp.arange(settings.seeds))
        return found


def make_programs(
    model: Model, settings: Settings, data: images.AnyDataset, *, in_turn: bool = False, mesh: Mesh | None = None
) -> Programs:
    """The functions of training, for all devices of the mesh."""
    plan = make_plan(settings, len(data.train))
    initial = functools.partial(init_states, model, plan)
    first_state = jax.jit(initial, out_shardings=layout.over(mesh), compiler_options=compiling.for_one_run())
    pixels = images.make_pixels(data)
    return Programs(first_state, make_run_call(model, settings, plan, pixels, in_turn=in_turn, mesh=mesh))


def compiled(programs: Programs, settings: Settings, data: images.AnyDataset) -> Programs:
    """The same functions compiled, for one device."""
    seeds = jnp.arange(settings.seeds)
    call = programs.call.lower(seeds, programs.state_shapes(settings), data.train, *_monitored(data))
    return Programs(programs.first_state.lower(seeds).compile(), call.compile())


def _monitored(data: images.AnyDataset) -> tuple[np.ndarray, ...]:
    """The images of either set whose bounds are computed after each call."""
    return tuple(images.spread(split, MONITORED_EXAMPLES) for split in (data.train, data.validation))


def _state_of(params: Params, plan: Plan) -> State:
    return State(
        params=params,
        optimizer=Params(*map(optimizer.init, params)),
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
    pixels: images.Pixels,
    *,
    in_turn: bool = False,
    mesh: Mesh | None = None,
) -> jax.stages.Wrapped:
    """One compiled call of all seeds: `(seeds [S], state, train [N, bytes], monitored_train, validation) -> state`.

    The seeds are vectorised, or run `in_turn`: less memory and, where the device is full with one, no slower. On a mesh
    each batch lies over its axis `data`; state and data sets are whole on every device.
    """
    step = make_step(make_objective(model, settings), settings, pixels, steps=plan.steps, mesh=mesh)
    monitor = make_monitor(model.log_weights(), pixels, mesh=mesh)

    def run_call(seed, state: State, train, monitored_train, validation) -> State:
        call_key = jax.random.fold_in(jax.random.key(seed), state.calls)

        def epoch(carry, number):
            return jax.lax.scan(step, carry, epoch_of(train, call_key, call=state.calls, number=number, plan=plan))

        first = Carry(state.params, state.optimizer, state.average)
        last, values = jax.lax.scan(epoch, first, jnp.arange(plan.epochs_a_call))
        monitored = monitor(last.average, monitored_train, validation)
        done = ((state.calls + 1) * plan.steps_a_call).astype(jnp.float32)
        best = early_stopping.update(
            Best(state.best, state.best_bound, state.stale),
            last.average,
            monitored.validation_bound,
            patience=plan.patience,
        )
        return State(
            params=last.params,
            optimizer=last.optimizer,
            average=last.average,
            best=best.params,
            best_bound=best.bound,
            stale=best.stale,
            # The row has the columns `CURVES`; the objective is that of the last epoch.
            curves=state.curves.at[state.calls].set(jnp.stack([done, jnp.mean(values[-1]), *monitored])),
            calls=state.calls + 1,
        )

    def run_all(seeds, state, *arrays):
        if in_turn:
            return jax.lax.map(lambda one: run_call(*one, *arrays), (seeds, state))
        return jax.vmap(lambda seed, state: run_call(seed, state, *arrays))(seeds, state)

    options = compiling.for_many_runs()
    return jax.jit(run_all, donate_argnums=1, out_shardings=layout.over(mesh), compiler_options=options)


class Limits(NamedTuple):
    """A deadline for training, and a function that is told of its progress.

    Attributes:
      deadline: of `time.monotonic()`; a compiled call that would probably end after it is not begun, except the first
        one. A signal stops training likewise (see `run_folder.stops_in_order`).
      log: called after each compiled call with a dict by `CURVES` of arrays [seeds].
    """

    deadline: float | None = None
    log: Callable[[dict[str, np.ndarray]], None] | None = None


def train(
    model: Model,
    settings: Settings,
    data: images.AnyDataset,
    folder: pathlib.Path,
    *,
    in_turn: bool = False,
    mesh: Mesh | None = None,
    programs: Programs | None = None,
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
      mesh: likewise, with the model's samples over its axis `sample`. A checkpoint can be continued on any other mesh.
      programs: of `make_programs` for the same arguments, if they are there already.
      deadline: see `Limits`.
      log: likewise.

    Raises:
      FloatingPointError: a seed diverged (see `divergence`); the message names seed, step and figures.
      UnusableError: there is a checkpoint that is damaged or of something else.
    """
    clock = _Clock(began=time.monotonic())
    plan = make_plan(settings, len(data.train))
    programs = programs or make_programs(model, settings, data, in_turn=in_turn, mesh=mesh)
    seeds = layout.whole(mesh, jnp.arange(settings.seeds))
    state = programs.first_state(seeds)
    monitored = _monitored(data)
    judge = _Judge(model, settings, plan, data, seeds, monitored, divergence.independent_pixels(data))
    arrays = layout.whole(mesh, jax.tree.map(jnp.asarray, (data.train, *monitored)))
    belongs_to = stored.identity(settings.written(), data.name, data.checksum)
    with checkpoints.opened(folder / "checkpoints", belongs_to) as kept:
        state, before = kept.restore(state) or (state, 0.0)
        clock = clock._replace(before=before)
        state, finished = _run_calls(
            lambda state: programs.call(seeds, state, *arrays),
            state,
            plan,
            settings,
            judge,
            kept,
            clock,
            Limits(deadline, log),
        )
        return Trained(state, clock.seconds(), finished)


class _Clock(NamedTuple):
    """The seconds that training took in all its pieces.

    Attributes:
      began: when this piece did, of `time.monotonic()`.
      before: seconds of the earlier pieces.
    """

    began: float
    before: float = 0.0

    def seconds(self) -> float:
        """The seconds of all pieces until now."""
        return self.before + time.monotonic() - self.began


def _run_calls(
    run_call: Callable[[State], State],
    state: State,
    plan: Plan,
    settings: Settings,
    judge: "_Judge",
    kept: checkpoints.Checkpoints,
    clock: _Clock,
    limits: Limits,
) -> tuple[State, bool]:
    """Make compiled calls until the limits stop it, and save; returns the state and whether training is finished."""
    first = int(state.calls[0])
    saved_at, longest = time.monotonic(), 0.0
    finished = first == plan.calls or early_stopping.is_over(state.stale, patience=plan.patience)
    with _progress(plan, settings, first) as progress:
        for call in range(first, plan.calls):
            # Every piece makes one compiled call, whatever the limit: one that is too short would lead nowhere else.
            late = call > first and limits.deadline is not None and time.monotonic() + longest > limits.deadline
            if finished or layout.agreed(late or run_folder.stopping() is not None):
                break
            call_began = time.monotonic()
            state = run_call(state)
            row = dict(zip(CURVES, np.asarray(state.curves[:, call]).T, strict=True))
            if call > first:  # the first one compiles
                longest = max(longest, time.monotonic() - call_began)
            # Before anything is saved: the last good checkpoint stays.
            judge = judge.judged(row, state, is_last=call == plan.calls - 1)
            _tell(progress, plan, row, limits)
            finished = call == plan.calls - 1 or early_stopping.is_over(state.stale, patience=plan.patience)
            if finished or layout.agreed(time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS):
                kept.save(call + 1, state, clock.seconds())
                saved_at = time.monotonic()
    done = int(state.calls[0])
    if not finished and done > first and kept.manager.latest_step() != done:
        kept.save(done, state, clock.seconds())
    return state, finished


def _progress(plan: Plan, settings: Settings, first: int) -> tqdm:
    """A bar on the standard error that counts steps, those of earlier pieces included."""
    return tqdm(
        total=plan.steps,
        initial=first * plan.steps_a_call,
        unit="step",
        desc=settings.name(),
        disable=not layout.is_first(),
    )


def _tell(progress: tqdm, plan: Plan, row: dict[str, np.ndarray], limits: Limits) -> None:
    bound, ess = row["validation_bound"].mean(), row["effective_sample_size"].mean()
    progress.set_postfix(bound=f"{bound:.2f}", ess=f"{ess:.2f}")
    progress.update(plan.steps_a_call)
    if limits.log is not None:
        limits.log(row)


class _Judge(NamedTuple):
    """Judges whether a seed has diverged, by its figures beside the bound of the untrained model.

    Attributes:
      model: the model.
      settings: the cell.
      plan: how its steps divide.
      data: the data set.
      seeds: [S].
      monitored: the examples of training and of validation that are watched.
      untrained: the bound of the untrained model, or at first that of independent pixels, which costs nothing.
      is_exact: whether it is the former.
    """

    model: Model
    settings: Settings
    plan: Plan
    data: images.AnyDataset
    seeds: jax.Array
    monitored: tuple[np.ndarray, np.ndarray]
    untrained: float
    is_exact: bool = False

    def judged(self, row: dict[str, np.ndarray], state: State, *, is_last: bool) -> "_Judge":
        """Raise a FloatingPointError if the figures of a compiled call are those of a seed that diverged.

        Returns:
          The judge of the next call: the bound of the untrained model is computed once, and only if it might decide.
        """
        settled = is_last or divergence.is_settled(self.settings, row["step"][0])
        fault, judge = divergence.fault(row, self.untrained, settled=settled), self
        if fault is not None and not self.is_exact:
            judge = self._replace(untrained=min(self.untrained, self._bound_of_start()), is_exact=True)
            fault = divergence.fault(row, judge.untrained, settled=settled)
        if fault is None:
            return judge
        seed, reason = fault
        if np.isneginf([row[name][seed] for name in divergence.SETTLED]).any():
            zero = np.isneginf(self._bounds(of_one(state.average, seed)))
            reason += f"; all importance weights of {zero.sum():,} of {len(zero):,} examples are zero"
        raise FloatingPointError(f"{self.settings.name()}: {reason}; lower the learning rate or clip")

    def _bound_of_start(self) -> float:
        """The mean bound of the untrained model, seed 0."""
        params = jax.jit(lambda seeds: init_states(self.model, self.plan, seeds).params)(self.seeds)
        return float(np.mean(self._bounds(of_one(params, 0))))

    def _bounds(self, params: Params) -> np.ndarray:
        """The bounds of the examples that are watched, [N]."""
        rows, (pixel_key, noise_key) = np.concatenate(self.monitored), jax.random.split(jax.random.key(1))
        x = images.make_pixels(self.data)(rows, pixel_key)
        return divergence.bounds(self.model.log_weights(), params, x, noise_key)
