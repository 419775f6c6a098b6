"""The table of fits; the command's description says what the columns are."""

from typing import Any

import numpy as np

from experiments.shared.markdown import table as markdown
from experiments.toy.problem import Settings

REVERSE = {"embedded": "member as input", "heads": "heads for members"}
Z0 = ("separate", "shared")
GRADIENTS = {"reparameterized": "plain", "doubly_reparameterized": "DReG", "authors": "released code's"}
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


def trainings_table(results: list[dict[str, Any]]) -> str:
    """Gaps of separate and shared z_0 at alpha 0, by reverse model, gradient and training."""
    by_row: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for result in results:
        settings = Settings(**result["settings"])
        steps = f"{settings.steps:,}"
        rate = f"2e-3 to 0 ({steps} steps)" if settings.decay else f"5e-4 ({steps} steps)"
        name = REVERSE[settings.reverse], GRADIENTS[settings.gradient], rate
        by_row.setdefault(name, {})[settings.z0] = result
    order = sorted(by_row, key=lambda name: (-min(np.mean(one["gap"]) for one in by_row[name].values()), name))
    rows = []
    for name in order:
        pair = by_row[name]
        gaps = [f"{np.mean(one['gap']):.3f} +- {np.std(one['gap'], ddof=1):.3f}" for one in map(pair.get, Z0) if one]
        correlation = np.asarray(pair["shared"]["weight_correlation"])[:, *np.triu_indices(3, 1)].mean()
        rows.append([*name, str(len(pair["shared"]["gap"])), *gaps, f"{correlation:.2f}".replace("-0.00", "0.00")])
    return markdown(["reverse model", "gradient", "rate", "seeds", "separate", "shared", "correlation, shared"], rows)
