"""Classifier norms against counts: do classes with more samples have longer rows?

Definition. Spearman's correlation of ||w_c|| with n_c, the training samples, at the last reading of the rows.

Test. Two-sided, over all orders of the classes (drawn where they are many). The sign depends on the optimizer: with
adaptive ones rare classes need not have the shorter rows (Menon et al. 2021, arXiv 2007.07314).

Source: Kang et al. 2020, arXiv 1910.09217.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imbdyn.findings.contrast import contrast, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import class_counts, groups
from imbdyn.findings.ranks import spearman
from imbdyn.findings.words import told_p

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def classifier_norms(trace: Trace) -> Finding:
    """Correlate the norms of the classifier's rows with the classes' counts."""
    group, counts = groups(trace), class_counts(trace)
    found = Finding(
        name="classifier_norms",
        claim="Classes with more training samples have longer rows of the classifier; the p-value is of a correlation.",
        unit="Spearman correlation of row norm and count",
        null=0.0,
        compared_with="no correlation",
        effect="mean row norm of the rare classes / that of the others",
    )
    rows = trace.classifier
    rows = rows[rows["step"] == rows["step"].max()].drop_duplicates("class_id").set_index("class_id")
    norms = finite(rows["row_norm"])
    if not norms:
        why = "they are read if it is a linear layer" if rows.empty else "the last ones are not finite"
        return replace(found, sentence=f"No rows of the classifier: {why}.")
    step = int(rows["step"].iloc[0])
    compared = contrast(norms, group)
    means = (
        ""
        if compared is None
        else f"rare classes' rows have norm {compared.rare:.2f}, the others' {compared.others:.2f}"
    )
    found = replace(
        found,
        effect_size=compared.rare / compared.others if compared is not None and compared.others > 0 else None,
        steps=(step, step),
        by_class=norms,
    )
    correlation = spearman([norms[c] for c in norms], [counts[c] for c in norms])
    if correlation is None:
        told = f"; {means}" if means else ""
        why = "of two classes it is 1 or -1" if len(norms) == 2 else "as one of them is the same for all"
        return replace(found, sentence=f"No correlation of row norm and count, {why}{told}.")
    return replace(
        found,
        value=correlation.rho,
        p_value=correlation.p_value,
        sentence=(
            f"Row norm and count have rank correlation {correlation.rho:.2f}{told_p(correlation.p_value)}"
            f"{'; ' if means else ''}{means}."
        ),
    )
