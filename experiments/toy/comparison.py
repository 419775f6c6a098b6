"""Shared against separate z_0 on the toy target, paired by seed: section 6.1 of Huang et al. (2019) in numbers."""

from typing import Any

import numpy as np
import scipy.stats

DISPERSION = ("gap", "estimate_log_variance", "estimate_variance", "estimate_deviation")
TITLES = {
    "gap": "log Z - bound",
    "estimate_log_variance": "Var(log w)",
    "estimate_variance": "Var(w / Z)",
    "estimate_deviation": "std(w / Z)",
    "weight_correlation": "correlation of the w_j",
}


def compare(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The differences of shared from separate z_0, paired by seed; `results` has separate and shared in turns.

    Returns:
      For each pair and figure the means of both, the mean difference, its 95 % interval by Student's t and the p-value
      of a difference of zero; None for the last two where there is one seed.
    """
    comparisons = []
    for separate, shared in zip(results[::2], results[1::2], strict=True):
        columns = {name: (separate[name], shared[name]) for name in DISPERSION}
        columns["weight_correlation"] = tuple(
            [
                float(np.mean(np.asarray(matrix)[np.triu_indices(len(matrix), 1)]))
                for matrix in one["weight_correlation"]
            ]
            for one in (separate, shared)
        )
        for name, (of_separate, of_shared) in columns.items():
            difference = np.subtract(of_shared, of_separate)
            interval = p_value = None
            if len(difference) > 1:
                test = scipy.stats.ttest_rel(of_shared, of_separate)
                limits = test.confidence_interval(0.95)
                interval, p_value = [float(limits.low), float(limits.high)], float(test.pvalue)
            comparisons.append(
                {
                    "alpha": shared["settings"]["alpha"],
                    "steps": shared["settings"]["steps"],
                    "figure": name,
                    "separate": float(np.mean(of_separate)),
                    "shared": float(np.mean(of_shared)),
                    "difference": float(np.mean(difference)),
                    "interval": interval,
                    "p_value": p_value,
                    "shared_is_lower": int(np.sum(difference < 0.0)),
                    "seeds": len(difference),
                }
            )
    return comparisons


def comparison_table(comparisons: list[dict[str, Any]]) -> str:
    """Markdown, a line for each comparison."""
    lines = [
        "| steps | alpha | figure | separate | shared | shared - separate | 95 % interval | p | shared is lower |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in comparisons:
        low, high = one["interval"] or (np.nan, np.nan)
        p_value = np.nan if one["p_value"] is None else one["p_value"]
        lines.append(
            f"| {one['steps']:,} | {one['alpha']:g} | {TITLES[one['figure']]} | {one['separate']:.4f} "
            f"| {one['shared']:.4f} | {one['difference']:+.4f} | {low:+.4f} to {high:+.4f} | {p_value:.1g} "
            f"| {one['shared_is_lower']} of {one['seeds']} |"
        )
    return "\n".join(lines)
