"""The tables of Huang et al. (2019) from finished runs of `experiments.vae`."""
