"""The settings of a run. Two runs with equal settings give equal numbers on one machine."""

import hashlib
import json
import math
from typing import Any, NamedTuple

from hiwae_jax.data import registry

LARGEST = 2**31 - 1  # counts are 32-bit numbers in compiled programs
BOUNDS_AT_LEAST = {
    "num_samples": 1,
    "steps": 1,
    "batch_size": 1,
    "encoder_updates": 1,
    "latent": 1,
    "proposal_hidden": 1,
    "nll_samples": 2,
    "warmup": 0,
    "patience": 0,
    "free_bits": 0,
    "nll_images": 0,
    "seeds": 1,
}
CONV_SHAPE = (28, 28)
CHOICES = {
    "architecture": ("mlp", "conv"),
    "schedule": ("constant", "cosine"),
    "twice": ("proposal", "encoder"),
}
LATER = ("twice",)  # fields that the first results do not have; with its default value a field of these is not written


class Settings(NamedTuple):
    """One cell of a table: one training configuration, run with several seeds.

    Attributes:
      dataset: a name of `hiwae_jax.data.dataset_names()`.
      architecture: "mlp", or "conv" for the paper's residual networks (28x28 images, meant for accelerators).
      model: "vae", "iwae", "iwae-h", "hiwae-A" with A the exponent alpha of the power heuristic, or "mixture-M" of M
        Gaussians, of which K are drawn without replacement.
      gradient: the gradient estimator of `make_bound`.
      num_samples: K; the VAE uses one.
      steps: minibatches, rounded up to whole epochs.
      batch_size: examples in a minibatch.
      learning_rate: of Adam.
      schedule: "constant", or "cosine": constant for the first half of the steps, then down to a hundredth.
      encoder_updates: updates of the inference model in each minibatch; the last one is joint with the generative one.
      warmup: steps over which beta rises linearly from 1e-4 to 1.
      free_bits: floor of the bracket beside the likelihood, nats a sample.
      polyak: decay of the average of the parameters that is evaluated.
      clip: largest norm of the gradient.
      patience: epochs without a better validation bound after which a seed is stopped; 0 for never.
      latent: dimensions of z and z_0.
      hidden: units of the MLP encoder's layers, the decoder has them reversed; the last is the size of the context, and
        all that counts for "conv".
      proposal_hidden: hidden units of the conditionals and of the reverse model.
      nll_samples: samples of z for the estimate of log p(x), all K-sample draws together.
      nll_images: images of a split whose log p(x) is estimated, evenly spread over it; 0 for all.
      seeds: independent runs, of seed 0, 1, ..., in one compiled program.
      twice: what the further updates of `encoder_updates` move: "proposal", all of the inference model; or "encoder",
        all of it but the reverse model r, which is updated once as the generative model, as in the released code.
    """

    dataset: str = "digits"
    architecture: str = "mlp"
    model: str = "iwae"
    gradient: str = "doubly_reparameterized"
    num_samples: int = 5
    steps: int = 2_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    encoder_updates: int = 1
    warmup: int = 500
    free_bits: float = 0.0
    polyak: float = 0.998
    clip: float = 5.0
    patience: int = 0
    latent: int = 20
    hidden: tuple[int, ...] = (200, 200)
    proposal_hidden: int = 100
    nll_samples: int = 2_000
    nll_images: int = 0
    seeds: int = 1
    twice: str = "proposal"

    def check(self) -> "Settings":
        """Return the settings, or raise a ValueError that names the one that is not possible."""
        self._check_types()
        for name, least in BOUNDS_AT_LEAST.items():
            if not least <= getattr(self, name) <= LARGEST:
                limit = f"least {least}" if not least <= getattr(self, name) else f"most {LARGEST:,}"
                raise ValueError(f"{name}: expected at {limit}, got {getattr(self, name)}")
        known = registry.entries()
        for name, choices in {"dataset": tuple(known), **CHOICES}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0.0 <= self.polyak < 1.0:
            raise ValueError(f"polyak: expected a decay in [0, 1), got {self.polyak}")
        if not (0.0 < self.learning_rate < math.inf and 0.0 < self.clip < math.inf):
            raise ValueError(
                f"learning_rate and clip: expected above 0 and finite, got {self.learning_rate} and {self.clip}"
            )
        if self.nll_images == 1:
            raise ValueError("nll_images: expected 0, for all, or at least 2 for a standard error, got 1")
        if self.twice == "encoder" and self.encoder_updates == 1:
            raise ValueError('twice: "encoder" is for several updates in a minibatch; set encoder_updates to 2 or more')
        if not self.hidden or not 1 <= min(self.hidden) <= max(self.hidden) <= LARGEST:
            raise ValueError(f"hidden: expected at least one layer of at least one unit, got {self.hidden}")
        height, width = known[self.dataset].shape
        if self.architecture == "conv" and (height, width) != CONV_SHAPE:
            raise ValueError(
                f'architecture: "conv" takes images of 28x28, and {self.dataset} has {height}x{width}; choose "mlp"'
            )
        return self

    def _check_types(self) -> None:
        kinds = {int: "a whole number", float: "a number", str: "a text", tuple: "a tuple of whole numbers"}
        for name, default in Settings()._asdict().items():
            value = getattr(self, name)
            if isinstance(default, tuple):
                right = isinstance(value, tuple) and all(type(part) is int for part in value)
            else:
                right = type(value) in ((int, float) if isinstance(default, float) else (type(default),))
            if not right:
                raise ValueError(f"{name}: expected {kinds[type(default)]}, got {value!r}")

    def written(self) -> dict[str, Any]:
        """The settings as files and names have them: a field of `LATER` only where it has no default value.

        So names, results and checkpoints stay those of earlier versions, which did not have the field.
        """
        default = Settings()._asdict()
        return {name: value for name, value in self._asdict().items() if name not in LATER or value != default[name]}

    def name(self) -> str:
        """A folder name that no other settings share."""
        digest = hashlib.sha256(json.dumps(self.written(), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.dataset}-{self.architecture}-{self.model}-K{self.num_samples}-{digest}"


def from_json(content: dict[str, Any]) -> Settings:
    """The settings that `Settings.written` was made from."""
    layers = content["hidden"]
    return Settings(**{**content, "hidden": tuple(layers) if isinstance(layers, list) else layers})
