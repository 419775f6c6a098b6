"""The convolutional H-IWAE in PyTorch, from the paper's description: K x batch rows at once, differentiated eagerly.

It takes the parameters of the JAX model and standard normal noise, and gives the same bound; its gradient is that of
"reparameterized". Images are NCHW, as is usual in PyTorch.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hiwae_jax.nn._gaussian import LOG_VARIANCE_BOUND, SCALE_FLOOR

Tree = dict[str, Any]


def to_torch(params: Tree, *, device: str = "cpu") -> Tree:
    """Leaves that ask for gradients, with kernels as PyTorch has them: [out, in] and [out, in, 3, 3]."""
    if isinstance(params, dict):
        return {str(name): to_torch(child, device=device) for name, child in params.items()}
    array = np.asarray(params)
    order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim)
    array = array if order is None else array.transpose(order)
    return torch.tensor(np.ascontiguousarray(array), requires_grad=True, device=device)


def gradients(params: Tree) -> Tree:
    """The leaves' gradients as NumPy arrays in the order of axes of the JAX model; zeros where there are none."""
    if isinstance(params, dict):
        return {name: gradients(child) for name, child in params.items()}
    gradient = torch.zeros_like(params) if params.grad is None else params.grad
    order = {2: (1, 0), 4: (2, 3, 1, 0)}.get(gradient.ndim)
    array = gradient.cpu().numpy()
    return array if order is None else array.transpose(order)


def leaves(params: Tree) -> list[torch.Tensor]:
    """All tensors."""
    return [leaf for child in params.values() for leaf in leaves(child)] if isinstance(params, dict) else [params]


def _unit(direction: torch.Tensor) -> torch.Tensor:
    return direction / direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))


def _linear(p: Tree, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, _unit(p["direction"]) * p["gain"][:, None], p.get("bias"))


def _conv(p: Tree, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    kernel = _unit(p["direction"]) * p["gain"][:, None, None, None]
    return functional.conv2d(x, kernel, p.get("bias"), stride=stride, padding=1)


def _residual_linear(p: Tree, x: torch.Tensor) -> torch.Tensor:
    return _linear(p["outer"], functional.elu(_linear(p["inner"], x))) + _linear(p["skip"], x)


def _residual_conv(p: Tree, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    return _conv(p["outer"], functional.elu(_conv(p["inner"], x, stride))) + _conv(p["skip"], x, stride)


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _conditional_gaussian(p: Tree, z: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of `z` [B, ..., I] with the gains and biases of the context [B, C]."""
    outputs = len(p["of_hidden"]) // 2
    hidden = len(p["of_z"]) - outputs
    gains = functional.linear(context, p["of_context"]["kernel"], p["of_context"]["bias"])
    gains = gains.view(len(context), *[1] * (z.ndim - 2), -1)
    of_z, of_hidden, hidden_bias, bias = gains.split([hidden + outputs, 2 * outputs, hidden, 2 * outputs], -1)
    y = of_z * functional.linear(z, _unit(p["of_z"]))
    units = functional.elu(y[..., :hidden] + hidden_bias)
    loc, raw = (of_hidden * functional.linear(units, _unit(p["of_hidden"])) + bias).chunk(2, -1)
    return loc + y[..., hidden:], raw


def _log_normal(z: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (-0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def encode(p: Tree, x: torch.Tensor) -> torch.Tensor:
    """Contexts [B, C] of images [B, 784]."""
    image = x.view(-1, 1, 28, 28)
    for block, stride in zip(p["blocks"].values(), (2, 1, 2, 1, 2), strict=True):
        image = functional.elu(_residual_conv(block, image, stride))
    return functional.elu(_residual_linear(p["output"], image.permute(0, 2, 3, 1).flatten(1)))


def decode(p: Tree, z: torch.Tensor) -> torch.Tensor:
    """Logits [N, 784] of samples [N, D]."""
    features = functional.elu(_residual_linear(p["second"], functional.elu(_residual_linear(p["first"], z))))
    image = _double(features.view(-1, 4, 4, 32).permute(0, 3, 1, 2).contiguous())
    for block in p["at_8"].values():
        image = functional.elu(_residual_conv(block, image))
    image = _double(image[:, :, :-1, :-1])
    for block in p["at_14"].values():
        image = functional.elu(_residual_conv(block, image))
    return _residual_conv(p["at_28"], _double(image)).flatten(1)


def mean_bound(params: Tree, x: torch.Tensor, noise: torch.Tensor, *, num_samples: int) -> torch.Tensor:
    """The mean over the batch [B, 784] of the H-IWLB for alpha = 1; `noise` [B, D + K D], that of z_0 first."""
    context = encode(params["encoder"], x)
    loc0, scale0 = (_residual_linear(params["base"][name], context) for name in ("loc", "raw_scale"))
    scale0 = functional.softplus(scale0) + SCALE_FLOOR
    D = loc0.shape[-1]
    z0 = loc0 + scale0 * noise[:, :D]
    loc, scale = _members(params["conditionals"]["network"], z0, context, num_samples)
    z = loc + scale * noise[:, D:].view(loc.shape)
    log_w = _log_joint(params["decoder"], z, x) + _log_reverse(params["reverse"], z, z0, context)
    log_w = log_w - _log_normal(z0, loc0, scale0)[:, None]
    # At alpha = 1 the member's own density cancels, and the sum of all members' densities remains.
    densities = _log_normal(z[:, :, None], loc[:, None], scale[:, None])
    return (log_w - densities.logsumexp(-1)).logsumexp(-1).mean()


def _members(p: Tree, z0: torch.Tensor, context: torch.Tensor, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Locations and scales [B, K, D] of the members."""
    loc, scale = _conditional_gaussian(p, z0, context)
    shape = (len(z0), num_samples, -1)
    return loc.view(shape), functional.softplus(scale).view(shape) + SCALE_FLOOR


def _log_joint(p: Tree, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`log p(x, z)` [B, K] of samples [B, K, D]."""
    logits = decode(p, z.flatten(0, 1)).view(*z.shape[:2], -1)
    pixels = x[:, None, :].expand_as(logits)
    log_likelihood = -functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)
    return log_likelihood + _log_normal(z, torch.zeros_like(z), torch.ones_like(z))


def _log_reverse(p: Tree, z: torch.Tensor, z0: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """`log r(z_0 | z)` [B, K]."""
    loc, log_variance = _conditional_gaussian(p["network"], z, _linear(p["member_contexts"], context))
    scale = (0.5 * LOG_VARIANCE_BOUND * (log_variance / LOG_VARIANCE_BOUND).tanh()).exp()
    return _log_normal(z0[:, None], loc, scale)


def value_and_grad(params: Tree, x: torch.Tensor, noise: torch.Tensor, *, num_samples: int) -> float:
    """One step; the gradient stays in the parameters."""
    for leaf in leaves(params):
        leaf.grad = None
    value = mean_bound(params, x, noise, num_samples=num_samples)
    value.backward()
    if value.is_cuda:
        torch.cuda.synchronize()
    return float(value.detach())


def kept_bytes(params: Tree, x: torch.Tensor, noise: torch.Tensor, *, num_samples: int) -> int:
    """Bytes of what the forward pass keeps for the backward pass, parameters aside, each storage once."""
    own = {leaf.untyped_storage().data_ptr() for leaf in leaves(params)}
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mean_bound(params, x, noise, num_samples=num_samples)
    return sum(storages.values())
