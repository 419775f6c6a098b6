"""What a run is made of; two runs with equal settings give equal numbers on one machine."""

import hashlib
import json
from typing import NamedTuple

BOUNDS_AT_LEAST = {
    "num_samples": 1,
    "steps": 1,
    "batch_size": 1,
    "latent": 1,
    "proposal_hidden": 1,
    "nll_samples": 2,
    "warmup": 0,
    "free_bits": 0,
}


class Settings(NamedTuple):
    """One training run.

    Attributes:
      dataset: "digits" or "binarized_mnist".
      model: a name of `models.MODELS`.
      gradient: the gradient estimator of `make_bound`.
      num_samples: K; the VAE uses one.
      steps: optimizer steps, rounded up to whole epochs.
      batch_size: examples in a minibatch.
      learning_rate: of Adam; constant for the first half of the steps, then down to a hundredth along a cosine.
      warmup: steps over which beta rises linearly from 1e-4 to 1.
      free_bits: floor of the bracket beside the likelihood, nats a sample.
      polyak: decay of the average of the parameters that is evaluated.
      clip: largest norm of the gradient.
      latent: dimensions of z and z_0.
      hidden: units of the encoder's layers; the decoder has them reversed.
      proposal_hidden: hidden units of the conditionals and of the reverse model.
      nll_samples: samples of z for the estimate of log p(x), all K-sample draws together.
      seed: of parameters, minibatches and noise.
    """

    dataset: str = "digits"
    model: str = "iwae"
    gradient: str = "doubly_reparameterized"
    num_samples: int = 5
    steps: int = 2_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 500
    free_bits: float = 0.0
    polyak: float = 0.998
    clip: float = 5.0
    latent: int = 20
    hidden: tuple[int, ...] = (200, 200)
    proposal_hidden: int = 100
    nll_samples: int = 2_000
    seed: int = 0

    def check(self) -> "Settings":
        """Return the settings, or say which one cannot be."""
        for name, least in BOUNDS_AT_LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0.0 <= self.polyak < 1.0:
            raise ValueError(f"polyak: expected a decay in [0, 1), got {self.polyak}")
        if not (self.learning_rate > 0.0 and self.clip > 0.0):
            raise ValueError(f"learning_rate and clip: expected above 0, got {self.learning_rate} and {self.clip}")
        return self

    def name(self) -> str:
        """A folder name that no other settings share."""
        digest = hashlib.sha256(json.dumps(self._asdict(), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.dataset}-{self.model}-K{self.num_samples}-seed{self.seed}-{digest}"
