"""The cells of `benchmarks.k_scaling`: their grid, their models, and the program of each."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import hiwae_jax as hj
from benchmarks.shared.roofline import TYPES, compiled
from experiments.shared import networks
from hiwae_jax import nn

RECOMMENDED, AT_ONCE, OVER_SAMPLES = "recommended", "all at once", "sample chunks"
IWLB, HEADS, OFFSETS = "IWLB", "H-IWLB", "H-IWLB offsets"
PLAIN, EXACT, REFILLED = "reparameterized", "doubly_reparameterized", "refilled"
DRAWN_TOGETHER = 100  # up to so many samples an example, those of a whole batch fit into a CPU's cache
MANY = 1_000  # from so many samples of one example on, a CPU takes them in chunks
CPU_SAMPLES = 200  # samples of a chunk; a few hundred are equally fast, and 200 take the least memory
PAIR_SAMPLES = 20  # samples of a chunk where each of them is compared with all members
ACCELERATOR_SAMPLES = 1_000  # samples of each example in a chunk, under "sample chunks"
PRECISIONS = ("float32", "tf32", "bfloat16")  # of an accelerator
FEW = (1, 10, 100, 1_000, 10_000)  # K that an accelerator measures first
MOST_HEADS = 500  # members of the H-IWLB with a head each; more of them share one


class Sizes(NamedTuple):
    """The sizes of the batch and of the networks, which are MLPs with two hidden layers of tanh units."""

    batch: int = 64
    pixels: int = 784
    hidden: int = 200
    latent: int = 50
    proposal_hidden: int = 100
    conv_context: int = 450

    def widths(self) -> tuple[int, ...]:
        """The widths of the MLP decoder's layers."""
        return (self.latent, self.hidden, self.hidden, self.pixels)

    def of_networks(self, decoder: str) -> networks.Sizes:
        """The sizes as `Networks` takes them; encoder and decoder are of one kind."""
        hidden = (self.hidden, self.hidden)
        encoder_hidden = (self.conv_context,) if decoder == "conv" else hidden
        return networks.Sizes(decoder, self.pixels, self.latent, encoder_hidden, hidden, self.proposal_hidden)


class Cell(NamedTuple):
    """One configuration at one K.

    Attributes:
      task: "train", value and gradient of the mean bound of a batch, or "evaluate", log p(x) of one example.
      decoder: "mlp" or "conv".
      bound: "IWLB"; "H-IWLB", with a head for each member; or "H-IWLB offsets", whose members share a head.
      alpha: of the power heuristic; 0 for "IWLB".
      gradient: of `make_bound`; empty for "evaluate".
      precision: of the matrix products.
      way: "recommended", "all at once" or "sample chunks".
      num_samples: K; of one draw, for "evaluate".
      total: samples of one example in all, where these are several draws.
    """

    task: str
    decoder: str
    bound: str
    alpha: float
    gradient: str
    precision: str
    way: str
    num_samples: int
    total: int = 0

    def configuration(self) -> str:
        """A name that is equal for all K."""
        bound = self.bound if self.bound == IWLB else f"{self.bound} alpha {self.alpha:g}"
        what = self.gradient if self.task == "train" else f"log evidence, {self.total:,} samples"
        return f"{bound}, {what}, {self.decoder}, {self.precision}, {self.way}"

    def name(self) -> str:
        """A name that no other cell has."""
        return f"{self.configuration()}, K = {self.num_samples:,}"


class Built(NamedTuple):
    """A cell's program.

    Attributes:
      call: takes one step.
      arguments: of the call.
      samples: how many z one call decodes, counting each once.
      flops: of the matrix products (or convolutions) of the decoder in one call: the forward pass and twice as much for
        the backward pass, one more forward pass for "refilled", forward alone for "evaluate". What is computed twice to
        save memory is not counted, nor are the encoder and the networks of the proposal.
      temp_bytes: temporary memory of the compiled program.
      chunks: what runs at once, in words.
    """

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    samples: int
    flops: float
    temp_bytes: int
    chunks: str


def grid(*, accelerator: bool, smoke: bool) -> list[Cell]:
    """All cells, the most important first, since a time limit cuts off the last."""
    K = (3,) if smoke else (1, 2, 5, 10, 20, 50, 100, 500, 1_000, 5_000, 10_000)
    few = (3,) if smoke else (2, 10, 50, 100, 500) if accelerator else (2, 5, 10, 20, 50, 100)
    total = 30 if smoke else 1_000_000
    precisions = PRECISIONS if accelerator or smoke else ("float32",)
    over = K if smoke else (5_000, 10_000)

    def cells() -> Iterator[Cell]:
        def train(bound, alpha, gradient, Ks, *, decoder="mlp", precision="float32", way=RECOMMENDED):
            return (Cell("train", decoder, bound, alpha, gradient, precision, way, k) for k in Ks)

        for precision in precisions:
            yield from train(IWLB, 0.0, EXACT, K, precision=precision)
        if accelerator or smoke:
            yield from train(IWLB, 0.0, EXACT, over, way=OVER_SAMPLES)
        yield from train(IWLB, 0.0, EXACT, (1, 5, 50, 500, 5_000, 10_000) if accelerator else K, way=AT_ONCE)
        for precision in dict.fromkeys((precisions[0], precisions[-1])):
            yield Cell("evaluate", "mlp", IWLB, 0.0, "", precision, RECOMMENDED, 3 if smoke else 1_000, total)
        yield Cell("evaluate", "mlp", HEADS, 1.0, "", "float32", RECOMMENDED, 3 if smoke else 5, total)
        for gradient in (EXACT, REFILLED, PLAIN):
            yield from train(HEADS, 1.0, gradient, few)
        yield from train(IWLB, 0.0, PLAIN, K)
        for gradient in (EXACT, PLAIN):
            yield from train(HEADS, 0.0, gradient, few)
        conv_few = (2,) if smoke else (1, 5, 50, 500) if accelerator else (1, 5, 50)
        for precision, way in itertools.product(precisions[:2], (RECOMMENDED, AT_ONCE)):
            yield from train(IWLB, 0.0, EXACT, conv_few, decoder="conv", precision=precision, way=way)
        for gradient in (EXACT, PLAIN):
            yield from train(OFFSETS, 0.0, gradient, few if smoke else (50, 100, 500, 1_000, 5_000, 10_000))
        yield from train(OFFSETS, 1.0, EXACT, few if smoke else (50, 100, 1_000))
        yield from train(HEADS, 1.0, EXACT, few if smoke else (50, 100), way=AT_ONCE)
        for precision in precisions[2:]:
            yield from train(HEADS, 1.0, EXACT, few, precision=precision)

    first = accelerator_first() if accelerator and not smoke else ()
    return list(dict.fromkeys([*first, *cells()]))


def accelerator_first() -> Iterator[Cell]:
    """What an accelerator measures first: IWLB and H-IWLB at alpha 1, DReG and plain, at few K in all precisions.

    The MLP's DReG gradient is first, then what differs from it in one way, then all combinations.
    """
    first = [(precision, "mlp", IWLB, EXACT) for precision in PRECISIONS]
    first += [("float32", "mlp", HEADS, EXACT), ("float32", "conv", IWLB, EXACT), ("tf32", "conv", IWLB, EXACT)]
    first += [("float32", "conv", HEADS, EXACT), ("float32", "mlp", IWLB, PLAIN), ("float32", "mlp", HEADS, PLAIN)]
    every = itertools.product(PRECISIONS, ("mlp", "conv"), (IWLB, HEADS), (EXACT, PLAIN))
    for precision, decoder, bound, gradient in dict.fromkeys([*first, *every]):
        for k in FEW:
            kind = OFFSETS if bound == HEADS and k > MOST_HEADS else bound
            alpha = 0.0 if bound == IWLB else 1.0
            yield Cell("train", decoder, kind, alpha, gradient, precision, RECOMMENDED, k)


class _Offsets(nnx.Module):
    """K members that share a head and differ by a constant each."""

    def __init__(self, of_one: nn.HierarchicalConditionals, num_samples: int, *, rngs: nnx.Rngs):
        self.of_one = of_one
        self.offsets = nnx.Param(0.1 * jax.random.normal(rngs.params(), (num_samples, of_one.latent_features)))

    def __call__(self, context, z0):
        loc, scale = self.of_one(context, z0)
        return loc + self.offsets[...], jnp.broadcast_to(scale, self.offsets.shape)


class _Networks(networks.Networks):
    def __init__(self, cell: Cell, sizes: Sizes, *, rngs: nnx.Rngs):
        per_member = cell.bound == HEADS and cell.alpha == 0.0
        super().__init__(
            sizes.of_networks(cell.decoder),
            members={IWLB: None, HEADS: cell.num_samples, OFFSETS: 1}[cell.bound],
            reverse_models=cell.num_samples if per_member else None,
            dtype=TYPES[cell.precision],
            rngs=rngs,
        )
        if cell.bound == OFFSETS:
            self.conditionals = _Offsets(self.conditionals, cell.num_samples, rngs=rngs)


@functools.lru_cache(maxsize=8)
def _initial(cell: Cell, sizes: Sizes) -> Any:
    """Parameters, which are float32 under every precision, from one compiled program."""

    @jax.jit
    def draw(key: Any) -> Any:
        return nnx.split(_Networks(cell, sizes, rngs=nnx.Rngs(key)), nnx.Param)[1]

    return draw(jax.random.key(0, impl="rbg"))  # the generator that takes the least time to compile


class Model(NamedTuple):
    """Parameters, and the functions of them that a bound is made of."""

    params: Any
    log_joint: Callable[..., Any]
    proposal: hj.Proposal
    weighting: hj.Weighting


def make_model(cell: Cell, sizes: Sizes) -> Model:
    """The model of a cell at its initial parameters, the same at every call."""

    def make(key: Any) -> _Networks:
        return _Networks(cell, sizes, rngs=nnx.Rngs(key))

    graphdef = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))[0]
    alike = cell if cell.bound != IWLB else cell._replace(num_samples=1)
    params = _initial(alike._replace(task="", gradient="", precision="float32", way="", total=0), sizes)

    def net(params: Any) -> _Networks:
        return nnx.merge(graphdef, params)

    if cell.bound == IWLB:
        proposal = networks.independent(net, num_samples=cell.num_samples)
    else:
        proposal = networks.hierarchical(net)
    return Model(params, networks.log_joint(net), proposal, hj.power_heuristic(cell.alpha))


def decoder_flops(decoder: str, sizes: Sizes) -> float:
    """FLOPs of one forward pass of the decoder for one z: two for each multiplication in its products."""
    if decoder == "mlp":
        return 2.0 * sum(m * n for m, n in itertools.pairwise(sizes.widths()))

    def block(features_in: int, features_out: int) -> int:  # a residual block: inner, outer and skip
        return 2 * features_in * features_out + features_out**2

    def doubled(side: int, channels_in: int, channels_out: int) -> int:  # the same, of the image doubled
        taps = 9 * side**2 * channels_in * 2 * channels_out  # of the small image, then moved in either direction
        moved = 3 * 2 * side * side * (3 * side + 2 * side) * 2 * channels_out
        return taps + moved + 9 * (2 * side * channels_out) ** 2

    linear = block(sizes.latent, sizes.conv_context) + block(sizes.conv_context, 512)
    conv = doubled(4, 32, 32) + doubled(7, 32, 16) + doubled(14, 16, 1)
    return 2.0 * (linear + conv + 9 * (8**2 * block(32, 32) + 14**2 * block(16, 16)))


def make_images(cell: Cell, sizes: Sizes) -> jax.Array:
    """A batch of images [B, P] whose pixels are coin flips of probability 0.3, from a fixed key."""
    pixels = 784 if cell.decoder == "conv" else sizes.pixels
    return jax.random.bernoulli(jax.random.key(1), 0.3, (sizes.batch, pixels)).astype(jnp.float32)


def build(cell: Cell, sizes: Sizes) -> Built:
    """Compile a cell."""
    return _evaluation(cell, sizes) if cell.task == "evaluate" else _training(cell, sizes)


def _training(cell: Cell, sizes: Sizes) -> Built:
    model, K = make_model(cell, sizes), cell.num_samples
    on_cpu = jax.default_backend() == "cpu"
    # For samples None means all of them, and for examples as many as the library chooses.
    samples_at_once, examples_at_once = None, sizes.batch if cell.way != RECOMMENDED else None
    if cell.way == OVER_SAMPLES:
        samples_at_once = ACCELERATOR_SAMPLES
    elif cell.way == RECOMMENDED and on_cpu and K >= MANY:
        samples_at_once = PAIR_SAMPLES if cell.alpha > 0.0 else CPU_SAMPLES
    bound = hj.make_bound(
        model.log_joint, model.proposal, weighting=model.weighting, gradient=cell.gradient, chunk_size=samples_at_once
    )
    draw = None
    if on_cpu and samples_at_once is not None:
        examples_at_once = 1
    elif examples_at_once is None and (K <= DRAWN_TOGETHER or not on_cpu):
        draw = bound.draw
    arguments = (model.params, make_images(cell, sizes), jax.random.key(2))

    def mean(params, batch, key):
        return jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, batch, jax.random.split(key, len(batch))))

    if examples_at_once == sizes.batch:
        step = jax.value_and_grad(mean)
    else:
        step = hj.batched_value_and_grad(bound, draw=draw, chunk_size=examples_at_once)
    call = compiled(step, arguments, cell.precision)
    passes = 4 if cell.gradient == REFILLED else 3
    samples = sizes.batch * K
    examples = {None: "automatic", 1: "1", sizes.batch: "all"}[examples_at_once]
    of_samples = "all" if samples_at_once is None else f"{samples_at_once:,}"
    return Built(
        call,
        arguments,
        samples=samples,
        flops=passes * samples * decoder_flops(cell.decoder, sizes),
        temp_bytes=call.memory_analysis().temp_size_in_bytes,
        chunks=f"examples {examples}, samples {of_samples}",
    )


def _evaluation(cell: Cell, sizes: Sizes) -> Built:
    model, K = make_model(cell, sizes), cell.num_samples
    log_weights = hj.make_log_weights(model.log_joint, model.proposal, weighting=model.weighting)
    rows = 1_000 if jax.default_backend() == "cpu" else 64_000
    chunk = max(1, min(rows, cell.total) // K)
    log_evidence = hj.make_log_evidence(log_weights, num_draws=cell.total // K, chunk_size=chunk)
    arguments = (model.params, make_images(cell, sizes)[0], jax.random.key(2))
    call = compiled(log_evidence, arguments, cell.precision)
    samples = cell.total // K * K
    flops = samples * decoder_flops(cell.decoder, sizes)
    return Built(call, arguments, samples, flops, call.memory_analysis().temp_size_in_bytes, f"{chunk:,} draws")
