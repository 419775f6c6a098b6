"""The colours of all figures: one colour for one thing, wherever it is drawn.

They can be told apart with the common kinds of colour blindness. Bounds are blue without a z_0 and warm with one,
gradients are green and purple, and other libraries are grey. What is not here (a variant, a network, a precision) has
its own line or marker and the colour of what it varies.
"""

BLACK, GREY, PALE = "#000000", "#6e6e6e", "#b8b8b8"

VAE = "#8ecae6"
IWAE = "#0072b2"  # and its bound, the IWLB
IWAE_H = "#3a9d9d"  # a z_0 for each sample
HIWAE_0, HIWAE_1, HIWAE_3 = "#d98200", "#d1495b", "#7b2d26"  # H-IWAE and H-IWLB, by alpha
HIWAE = {0.0: HIWAE_0, 1.0: HIWAE_1, 3.0: HIWAE_3}

DREG, PLAIN = "#1b6b33", BLACK
GRADIENTS = {
    "reparameterized": PLAIN,
    "doubly_reparameterized": DREG,
    "one backward sample": "#5aa864",  # DReG too
    "refilled": "#9b5de5",
    "path_squared": "#b56b9c",
    "authors": GREY,
}

OURS = DREG  # this library beside others, with its default gradient
OTHERS = {
    "jax-scanned": GREY,
    "numpyro": "#2b2b2b",
    "tfp": "#545454",
    "torch-compiled": "#7a7a7a",
    "pyro": "#8c8c8c",
    "pythae": "#3f3f3f",
}

GAP, VARIANCE, LOG_VARIANCE = BLACK, "#9b5de5", "#e07a1f"


def of_model(model: str) -> str:
    """The colour of a model of `experiments.vae`; any alpha that is not above has the colour of alpha = 1."""
    named = {"vae": VAE, "iwae": IWAE, "iwae-h": IWAE_H, "hiwae": HIWAE_1}
    if model in named:
        return named[model]
    return HIWAE.get(float(model.rpartition("-")[2]), HIWAE_1)
