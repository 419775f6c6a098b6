"""The table of fits; the command's description says what the columns are."""

from typing import Any

import numpy as np

from experiments.toy.problem import Settings

HEADER = (
    "| z_0 | alpha | reverse | gradient | K | steps | rate | bound | log Z | gap | Var log w | Var log w_j | corr "
    "| ESS | seconds |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def row(result: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    settings = Settings(**result["settings"])
    spread = f"{np.std(result['gap'], ddof=1):.4f}" if len(result["gap"]) > 1 else "-"
    mean = {name: np.mean(values) for name, values in result.items() if isinstance(values, list)}
    pairs = np.asarray(result["weight_correlation"])[:, *np.triu_indices(settings.num_samples, 1)]
    of_member = "context" if settings.networks == "paper" else settings.reverse
    reverse = of_member if settings.knows_member and settings.z0 != "markov" else "common"
    return (
        f"| {settings.z0} | {settings.alpha:g} | {reverse} | {settings.gradient} | {settings.num_samples} "
        f"| {settings.steps} | {settings.learning_rate:g}{' to 0' if settings.decay else ''} "
        f"| {mean['bound']:.4f} | {result['log_z']:.5f} | {mean['gap']:.4f} +- {spread} "
        f"| {mean['estimate_log_variance']:.3f} | {mean['log_weight_variance']:.3f} "
        f"| {f'{np.mean(pairs):.3f}' if pairs.size else '-'} "
        f"| {mean['effective_sample_size']:.3f} | {result['train_seconds']:.0f} |"
    )
