"""The contestants of `benchmarks.peers`. No framework is imported before one is asked for."""

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # at run time it waits until the cores are chosen
    from benchmarks.peers.problem import Contestant, Problem

REFERENCE = "jax"
TORCH = "torch==2.13.0"


class Peer(NamedTuple):
    """One contestant: the function that makes it, and what it must compute.

    Attributes:
      title: its name in tables.
      make: `module.function` in this package.
      settings: keyword arguments of that function.
      package: what must be importable.
      install: the arguments of `pip install` that bring it.
      rule: which loss and gradient are expected; see `problem.expected`.
    """

    title: str
    make: str
    settings: Any = MappingProxyType({})
    package: str = "jax"
    install: str = ""
    rule: str = "plain"


def _hiwae(title: str, gradient: str, **settings: bool) -> Peer:
    rule = "plain" if gradient == "reparameterized" else gradient
    return Peer(f"hiwae_jax {title}", "on_jax.make_hiwae", {"gradient": gradient, **settings}, rule=rule)


PEERS = {
    REFERENCE: Peer("plain JAX", "on_jax.make_plain"),
    "jax-scanned": Peer("plain JAX, scanned", "on_jax.make_plain", {"scanned": True}),
    "hiwae": _hiwae("plain", "reparameterized"),
    "hiwae-chunks": _hiwae("plain, chunks", "reparameterized", in_chunks=True),
    "hiwae-scanned": _hiwae("plain, chunks, scanned", "reparameterized", in_chunks=True, scanned=True),
    "hiwae-dreg": _hiwae("DReG", "doubly_reparameterized"),
    "hiwae-dreg-chunks": _hiwae("DReG, chunks", "doubly_reparameterized", in_chunks=True),
    "hiwae-dreg-scanned": _hiwae("DReG, chunks, scanned", "doubly_reparameterized", in_chunks=True, scanned=True),
    "numpyro": Peer("NumPyro RenyiELBO", "on_jax.make_numpyro", package="numpyro", install="numpyro"),
    "tfp": Peer("TFP", "on_jax.make_tfp", package="tensorflow_probability.substrates.jax", install="tfp-nightly"),
    "tfp-dreg": Peer(
        "TFP DReG",
        "on_jax.make_tfp",
        {"doubly_reparameterized": True},
        package="tensorflow_probability.substrates.jax",
        install="tfp-nightly",
        rule="squared",
    ),
    "torch": Peer("PyTorch", "on_torch.make_torch", package="torch", install=TORCH),
    "torch-compiled": Peer(
        "PyTorch, compiled", "on_torch.make_torch", {"compiled": True}, package="torch", install=TORCH
    ),
    "pyro": Peer("Pyro RenyiELBO", "on_torch.make_pyro", package="pyro", install=f"{TORCH} pyro-ppl"),
    "pythae": Peer(
        "pythae IWAE",
        "on_torch.make_pythae",
        package="pythae.models",
        install=f"{TORCH} pythae",
        rule="weighted_mean",
    ),
}


def why_missing(name: str) -> str | None:
    """Why a contestant cannot run here, with what to install; None if it can."""
    import jax

    peer = PEERS[name]
    if peer.make.startswith("on_torch.") and jax.default_backend() != "cpu":
        return "runs on the CPU only, and JAX does not here"
    try:
        importlib.import_module(peer.package)
    except (
        ImportError,
        AttributeError,
        OSError,
    ) as error:  # not installed, or made for an older JAX, or a library that does not load
        return f"{error}; pip install {peer.install}"
    return None


def make(name: str, problem: "Problem") -> "Contestant":
    """The `Contestant` of that name."""
    module, function = PEERS[name].make.split(".")
    maker = getattr(importlib.import_module(f"benchmarks.peers.{module}"), function)
    return maker(problem, **PEERS[name].settings)
