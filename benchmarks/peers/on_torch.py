"""Contestants of `benchmarks.peers` that run on PyTorch, on the CPU."""

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers.problem import LEARNING_RATE, SCALE_FLOOR, Contestant, Evaluated, Problem, standard_noise

ADAM = {"lr": LEARNING_RATE, "fused": True}  # fused is the fastest of PyTorch's three implementations


def _network(layers: list[dict[str, np.ndarray]]) -> torch.nn.Sequential:
    modules: list[torch.nn.Module] = []
    for layer in layers:
        linear = torch.nn.Linear(*layer["kernel"].shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer["kernel"].T.copy()))
            linear.bias.copy_(torch.from_numpy(layer["bias"]))
        modules += [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*modules[:-1])


def _gradient(network: torch.nn.Sequential, scale: float) -> list[dict[str, np.ndarray]]:
    return [
        {"kernel": scale * linear.weight.grad.numpy().T, "bias": scale * linear.bias.grad.numpy()}
        for linear in network[::2]
    ]


def _encode(encoder: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    loc, raw = encoder(x).chunk(2, dim=-1)
    return loc, functional.softplus(raw) + SCALE_FLOOR


def _evaluation(
    problem: Problem,
    networks: dict[str, torch.nn.Sequential],
    loss_and_grads: Callable[[np.ndarray], float],
    divisor: int = 1,
) -> Callable[[], Evaluated]:
    """Evaluates with standard noise; `divisor` turns a loss that is a sum into a mean."""

    def evaluate():
        noise = standard_noise(problem)
        loss = loss_and_grads(noise) / divisor
        gradient = {name: _gradient(network, 1.0 / divisor) for name, network in networks.items()}
        for network in networks.values():
            network.zero_grad()
        return Evaluated(loss, gradient, noise)

    return evaluate


def _repeated(step: Callable[[], Any]) -> Callable[[int], None]:
    def advance(calls):
        for _ in range(calls):
            step()

    return advance


def make_torch(problem: Problem, *, compiled: bool = False) -> Contestant:
    """Written by hand; `compiled`: the loss, and with it its gradient, by `torch.compile`."""
    networks = {name: _network(layers) for name, layers in problem.params.items()}
    x, K = torch.from_numpy(problem.images), problem.num_samples
    optimizer = torch.optim.Adam([p for network in networks.values() for p in network.parameters()], **ADAM)

    def loss(x, noise):  # noise [K, B, D]
        loc, scale = _encode(networks["encoder"], x)
        z = loc + scale * noise
        logits = networks["decoder"](z)
        surprise = functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        # The constants of the two Gaussians cancel.
        log_w = (0.5 * noise**2 - 0.5 * z**2 + scale.log()).sum(-1) - surprise.sum(-1)
        return (math.log(K) - torch.logsumexp(log_w, dim=0)).mean()

    if compiled:
        loss = torch.compile(loss, dynamic=False)

    def step():
        optimizer.zero_grad()
        value = loss(x, torch.randn(K, len(x), problem.sizes.latent))
        value.backward()
        optimizer.step()

    def loss_and_grads(noise):
        value = loss(x, torch.from_numpy(np.ascontiguousarray(noise.swapaxes(0, 1))))
        value.backward()
        return value.item()

    return Contestant(_repeated(step), _evaluation(problem, networks, loss_and_grads))


def make_pyro(problem: Problem) -> Contestant:
    """`SVI.step` with `RenyiELBO(alpha=0, vectorize_particles=True)`, without argument checks."""
    import pyro
    from pyro import distributions as dist
    from pyro.infer import SVI, RenyiELBO

    pyro.clear_param_store()
    pyro.enable_validation(False)
    networks = {name: _network(layers) for name, layers in problem.params.items()}
    x, latent = torch.from_numpy(problem.images), problem.sizes.latent

    def model(x):
        pyro.module("decoder", networks["decoder"])
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(latent), torch.ones(latent)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=networks["decoder"](z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", networks["encoder"])
        with pyro.plate("batch", len(x)):
            pyro.sample("z", dist.Normal(*_encode(networks["encoder"], x)).to_event(1))

    objective = RenyiELBO(alpha=0, num_particles=problem.num_samples, max_plate_nesting=1, vectorize_particles=True)
    svi = SVI(model, guide, pyro.optim.Adam(dict(ADAM)), objective)

    def loss_and_grads(noise):
        by_particle = torch.from_numpy(np.ascontiguousarray(noise.swapaxes(0, 1)))

        def injected(shape, dtype, device):
            return by_particle.reshape(shape)  # a single particle has no axis of particles

        with mock.patch("torch.distributions.normal._standard_normal", injected):
            return svi.loss_and_grads(model, guide, x)

    evaluate = _evaluation(problem, networks, loss_and_grads, divisor=len(x))
    return Contestant(_repeated(lambda: svi.step(x)), evaluate)


def make_pythae(problem: Problem) -> Contestant:
    """`IWAE` of pythae with our networks; its loss is a mean of log-weights whose gradient is that of the bound."""
    from pythae.models import IWAE, IWAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    networks = {name: _network(layers) for name, layers in problem.params.items()}

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.network = networks["encoder"]

        def forward(self, x):
            loc, scale = _encode(self.network, x)
            return ModelOutput(embedding=loc, log_covariance=2.0 * scale.log())

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.network = networks["decoder"]

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))

    config = IWAEConfig(
        input_dim=(problem.sizes.pixels,),
        latent_dim=problem.sizes.latent,
        number_samples=problem.num_samples,
        reconstruction_loss="bce",
    )
    model = IWAE(config, encoder=Encoder(), decoder=Decoder())
    model.train()
    inputs = {"data": torch.from_numpy(problem.images)}
    optimizer = torch.optim.Adam(model.parameters(), **ADAM)

    def step():
        optimizer.zero_grad()
        model(inputs).loss.backward()
        optimizer.step()

    def loss_and_grads(noise):
        with mock.patch("torch.randn_like", return_value=torch.from_numpy(noise)):
            loss = model(inputs).loss
        loss.backward()
        return loss.item()

    return Contestant(_repeated(step), _evaluation(problem, networks, loss_and_grads))
