"""What `test_devices.py` runs in processes of their own, since the number of devices is fixed before JAX starts.

    python -m tests.device_program 8 devices FOLDER                # with 8 forced host devices
    python -m tests.device_program 4 process FOLDER ADDRESS INDEX  # one of 2 processes with 4

Both write into FOLDER what they saw, with the numbers of a single device beside it, and assert nothing.
"""

import json
import pathlib
import re
import shutil
import sys
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import hiwae_jax as hj
from experiments.vae import command as vae
from experiments.vae import images, layout, pictures, split_mean, training
from experiments.vae.models import make_model
from experiments.vae.settings import Settings
from hiwae_jax._gradients import model_passes
from tests import hurry

# Every size is one of a kind, so that a shape tells what it is of.
BATCH, K, LATENT, HIDDEN, PIXELS, CONTEXT, PROPOSAL_HIDDEN = 8, 6, 7, 40, 20, 10, 12
ALPHA = {"iwae": 0.0, "hiwae-0": 0.0, "hiwae-1": 1.0}
GRADIENTS = ("reparameterized", "doubly_reparameterized")
SHAPES = {
    "decoder": (LATENT, HIDDEN),
    "pixels": (HIDDEN, PIXELS),
    "encoder": (PIXELS, CONTEXT),
    "base": (CONTEXT, LATENT),
    "base_scale": (CONTEXT, LATENT),
    "conditionals": (CONTEXT + LATENT, PROPOSAL_HIDDEN),
    "members": (PROPOSAL_HIDDEN, K * LATENT),
    "members_scale": (PROPOSAL_HIDDEN, K * LATENT),
    "reverse": (LATENT, PROPOSAL_HIDDEN),
    "reverse_loc": (PROPOSAL_HIDDEN, LATENT),
    "reverse_scale": (PROPOSAL_HIDDEN, LATENT),
}
TRAINING = Settings(steps=15, warmup=5, batch_size=256, latent=4, hidden=(16,), num_samples=2, seeds=2)
STEPS_A_CALL = 5


def log_joint(params, x, z):
    """A Bernoulli decoder of one hidden layer, and the prior without its constant."""
    logits = jnp.tanh(z @ params["decoder"]) @ params["pixels"]
    return jnp.sum(x * logits - jax.nn.softplus(logits)) - 0.5 * jnp.sum(z**2)


def proposal(name, sharding=None):
    """The proposal of a model in `ALPHA`."""

    def context(params, x):
        return jnp.tanh(x @ params["encoder"])

    def base(params, h):
        return h @ params["base"], jnp.exp(0.1 * h @ params["base_scale"])

    def conditionals(params, h, z0):
        hidden = jnp.tanh(jnp.concatenate([h, z0]) @ params["conditionals"])
        scale = jnp.exp(0.1 * hidden @ params["members_scale"])
        return (hidden @ params["members"]).reshape(K, LATENT), scale.reshape(K, LATENT)

    def reverse(params, h, z):
        hidden = jnp.tanh(z @ params["reverse"])
        return hidden @ params["reverse_loc"], jnp.exp(0.1 * hidden @ params["reverse_scale"])

    if name == "iwae":
        return hj.independent(lambda params, x: base(params, context(params, x)), num_samples=K, sharding=sharding)
    return hj.hierarchical(base, conditionals, reverse, context=context, sharding=sharding)


def loss(name, *, gradient=None, sharding=None, axis=None, chunk_size=None):
    """`(params, x, keys) -> scalar` of a batch."""
    weighting = hj.power_heuristic(ALPHA[name])
    bound = hj.make_bound(
        log_joint, proposal(name, sharding), weighting=weighting, gradient=gradient, chunk_size=chunk_size
    )
    over_batch = jax.vmap(bound, in_axes=(None, 0, 0), spmd_axis_name=axis)
    return lambda params, x, keys: -jnp.mean(over_batch(params, x, keys))


def make_step(name, gradients=(None,), **where):
    """A compiled function of `(params, x, key)`: values and gradients of the estimators, in a list each."""
    losses = [loss(name, gradient=gradient, **where) for gradient in gradients]

    def step(params, x, key):
        keys = jax.random.split(key, len(x))
        pairs = [jax.value_and_grad(one)(params, x, keys) for one in losses]
        return tuple(map(list, zip(*pairs, strict=True)))

    return jax.jit(step)


def make_arguments():
    """Parameters, a batch and a key."""
    random = np.random.default_rng(1)
    params = {name: jnp.asarray(random.normal(size=shape) / 3.0, jnp.float32) for name, shape in SHAPES.items()}
    x = jnp.asarray(random.integers(0, 2, (BATCH, PIXELS)), jnp.float32)
    return params, x, jax.random.key(3)


def make_mesh(**sizes):
    """A mesh on which the compiler places what is not said."""
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def collectives(text):
    """`[operation, [shape, ...]]` of every operation between devices in the text of a compiled program."""
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
    found = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    return [
        [kind, [[int(n) for n in dims.split(",") if n] for dims in re.findall(r"\w\d+\[([\d,]*)\]", result)]]
        for result, kind in found
    ]


def difference(found, expected):
    """The largest difference between two trees, relative to the largest number of the second."""
    found, expected = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (found, expected))
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def compare(found, expected):
    """The differences of values and of gradients."""
    return dict(zip(("values", "gradients"), map(difference, found, expected), strict=True))


def place(mesh, params, x, key):
    """Parameters on every device, the batch over `data`."""
    return jax.device_put(params, NamedSharding(mesh, P())), jax.device_put(x, NamedSharding(mesh, P("data"))), key


def bounds_on(mesh, expected):
    """Differences from a single device, and collectives, of every model."""
    seen, arguments = {}, place(mesh, *make_arguments())
    for name, right in expected.items():
        step = make_step(name, GRADIENTS, sharding=NamedSharding(mesh, P("sample")), axis="data")
        compiled = step.lower(*arguments).compile()
        seen[name] = compare(compiled(*arguments), right) | {"collectives": collectives(compiled.as_text())}
    return seen


def sharded_parameters(right):
    """The decoder's wide layer over a mesh axis of its own, beside those of batch and samples."""
    mesh = make_mesh(data=2, sample=2, wide=2)
    params, x, key = place(mesh, *make_arguments())
    params["decoder"] = jax.device_put(params["decoder"], NamedSharding(mesh, P(None, "wide")))
    params["pixels"] = jax.device_put(params["pixels"], NamedSharding(mesh, P("wide")))
    step = make_step("iwae", sharding=NamedSharding(mesh, P("sample")), axis="data")
    compiled = step.lower(params, x, key).compile()
    found = compiled(params, x, key)
    return compare(found, right) | {
        "collectives": collectives(compiled.as_text()),
        "piece": found[1][0]["decoder"].addressable_shards[0].data.shape,
    }


def by_hand(right):
    """`jax.shard_map` over the batch: the mean in the loss, and of the gradients, which is 8 times too large."""
    mesh = make_mesh(data=8)
    local, local_in_chunks = loss("iwae"), loss("iwae", chunk_size=4)
    params, x, key = make_arguments()

    def mean_in_loss(params, x, keys):
        return jax.grad(lambda params: jax.lax.pmean(local(params, x, keys), "data"))(params)

    def in_chunks(params, x, keys):
        return jax.grad(lambda params: jax.lax.pmean(local_in_chunks(params, x, keys), "data"))(params)

    def mean_of_gradients(params, x, keys):
        return jax.lax.pmean(jax.grad(local)(params, x, keys), "data")

    @jax.jit
    def both(*arguments):
        specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": P()}
        steps = mean_in_loss, mean_of_gradients, in_chunks
        return [jax.shard_map(step, mesh=mesh, **specs)(*arguments) for step in steps]

    with mock.patch.object(model_passes, "bytes_of", return_value=0):  # so that one pass would pay on one device
        inside, outside, chunked = both(params, x, jax.random.split(key, BATCH))
    return {
        "mean_in_loss": difference(inside, right),
        "in_chunks": difference(chunked, right),
        "mean_of_gradients": difference(outside, jax.tree.map(lambda leaf: mesh.size * leaf, right)),
    }


def explicit_axes():
    """Minibatches in chunks of 3 of 8 examples, on a mesh of the kind that JAX makes unless told otherwise."""
    mesh = jax.make_mesh((4, 2), ("data", "wide"))
    bound = hj.make_bound(log_joint, proposal("hiwae-1"), weighting=hj.power_heuristic(1.0))
    options = {"draw": bound.draw, "chunk_size": 3}
    step = hj.batched_value_and_grad(bound, **options)
    right = jax.jit(step)(*make_arguments())
    params, x, key = place(mesh, *make_arguments())
    params["decoder"] = jax.device_put(params["decoder"], NamedSharding(mesh, P(None, "wide")))
    params["pixels"] = jax.device_put(params["pixels"], NamedSharding(mesh, P("wide")))
    found = {
        "inside": jax.jit(step)(params, x, key),
        "dispatched": hj.batched_value_and_grad(bound, **options, dispatch=True)(params, x, key),
    }
    pieces = [gradient["decoder"].addressable_shards[0].data.shape for _, gradient in found.values()]
    return {name: compare(one, right) for name, one in found.items()} | {"pieces": pieces}


def refusals():
    """The messages of what cannot be."""
    mesh = make_mesh(data=2, sample=4)
    messages = []
    for attempt in (
        lambda: make_step("iwae", sharding=NamedSharding(mesh, P("sample")))(*make_arguments()),
        lambda: layout.check(TRAINING._replace(batch_size=63), mesh),
        lambda: layout.check(TRAINING._replace(num_samples=6), mesh),
        lambda: layout.make_mesh({"data": 16}),
    ):
        try:
            attempt()
        except ValueError as error:
            messages.append(str(error))
    return messages


def train(folder, second):
    """Train on one device; what is in the folder during the second compiled call is copied."""

    def log(row):
        if row["step"][0] == 2 * STEPS_A_CALL:
            shutil.copytree(folder, second)

    training.STEPS_A_CALL = STEPS_A_CALL
    training.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    data = images.load("digits", None)
    model = make_model(TRAINING, pixel_mean=images.pixel_mean(data))
    return training.train(model, TRAINING, data, folder, log=log).state


def write_numbers(path, tree):
    """The leaves of a tree."""
    np.savez(path, *map(np.asarray, jax.tree.leaves(tree)))


def read_numbers(path):
    """What `write_numbers` wrote."""
    with np.load(path) as content:
        return [content[name] for name in content]


def on_devices(folder):
    """Eight devices of one process."""
    expected = {name: make_step(name, GRADIENTS)(*make_arguments()) for name in ALPHA}
    mesh = make_mesh(data=4, sample=2)
    recommended = tuple(part[1] for part in expected["iwae"])
    seen = {
        "bounds": bounds_on(mesh, expected),
        "sharded_parameters": sharded_parameters([[part] for part in recommended]),
        "by_hand": by_hand(recommended[1]),
        "explicit_axes": explicit_axes(),
        "refusals": refusals(),
    }
    write_numbers(folder / "expected.npz", recommended)
    whole = train(folder / "whole", folder / "parts" / TRAINING.name())
    write_numbers(folder / "whole.npz", (whole.params, whole.curves))
    (folder / "devices.json").write_text(json.dumps(seen))


def some_figures():
    """What an evaluation of `TRAINING` has the form of."""
    data, zero = images.load("digits", None), [0.0] * TRAINING.seeds
    return {
        **{name: split_mean.Figure(zero, zero, zero)._asdict() for name in vae.evaluation.FIGURES},
        "nll_samples": TRAINING.nll_samples,
        "nll_images": [len(images.spread(split, TRAINING.nll_images)) for split in (data.validation, data.test)],
        "evaluation_seconds": 0.0,
    }


def in_process(folder, address, index):
    """One of two processes with 4 devices each; they go on with what one device began."""
    index = int(index)
    layout.join(f"{address},2,{index}")
    mesh = layout.make_mesh({"data": 4, "sample": 2})
    params, x, key = make_arguments()
    rows = np.split(np.asarray(x), 2)[index]
    x = jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), rows)
    params = jax.device_put(params, NamedSharding(mesh, P()))
    found = make_step("iwae", sharding=NamedSharding(mesh, P("sample")), axis="data")(params, x, key)
    expected = jax.tree.unflatten(jax.tree.structure(found), read_numbers(folder / "expected.npz"))

    training.STEPS_A_CALL = STEPS_A_CALL
    kept = []
    training_train = training.train
    training.train = lambda *arguments, **options: kept.append(training_train(*arguments, **options)) or kept[-1]
    # Evaluation and pictures are tested on one device; compiling them twice more would be most of this test.
    vae.evaluation.evaluate = lambda *arguments, **options: some_figures()
    pictures.write_pictures = lambda *arguments: (folder / f"pictures-{index}").touch()
    result = vae.run(TRAINING, images.load("digits", None), folder / "parts", mesh=mesh)
    whole, state = read_numbers(folder / "whole.npz"), kept[0].state
    seen = compare(found, expected) | {
        "training": difference((state.params, state.curves), whole),
        "calls": int(state.calls[0]),
        "mesh": result["provenance"]["mesh"],
        "again": vae.run(TRAINING, images.load("digits", None), folder / "parts", mesh=mesh)["provenance"]["mesh"],
    }
    (folder / f"process-{index}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    devices, part, folder, *rest = sys.argv[1:]
    hurry.begin()
    chex.set_n_cpu_devices(int(devices))
    cache = pathlib.Path(__file__).resolve().parent.parent / ".cache" / "jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    {"devices": on_devices, "process": in_process}[part](pathlib.Path(folder), *rest)
