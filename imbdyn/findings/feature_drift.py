"""Feature drift: the features of a class lie elsewhere on held-out data than on the training data.

Definition. dis_c^2 = ||mu_c - mu_c'||^2, class means of the features on held-out and on training data, at the last step
with both. If the samples were exchangeable, its expectation would be tr(S_c)/n_c + tr(S_c')/n_c', S sample covariances:
the null. The measure is dis_c^2 / null, mean over the rare classes; 1 is what sampling alone gives.

For equal drift that ratio grows with n_c. Groups are therefore compared by (dis_c^2 - null) / (tr(S_c)/2 + tr(S_c')/2):
the drift without sampling error, in units of the variance within the class, which does not.

Source: Ye, Chen, Zhan, Chao 2020, arXiv 2001.01385, who draw equally many training samples of each class instead. Null
and measure are ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imbdyn.findings.contrast import contrast, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import groups
from imbdyn.findings.recall import TRAIN_EVAL, held_out_split
from imbdyn.findings.rows import longest_run
from imbdyn.findings.words import told_p, two

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def feature_drift(trace: Trace) -> Finding:
    """Measure how far features drift from the training data to held-out data, against the null."""
    group = groups(trace)
    found = Finding(
        name="feature_drift",
        claim=(
            "The features of rare classes lie elsewhere on held-out data than on training data; the p-value is of a "
            "difference between rare and other classes in drift by variance."
        ),
        unit="squared distance of class means / what sampling gives",
        null=1.0,
        compared_with="exchangeable features",
        effect="squared drift without sampling error / variance within the class: rare classes minus others",
    )
    rows = trace.class_features
    key = ["step", "layer", "class_id"]
    test, train = (rows[rows["split"] == split] for split in (held_out_split(trace), TRAIN_EVAL))
    test = test[test["train_test_shift"].notna()]
    both = test.merge(train[[*key, "count", "within_var"]], on=key, suffixes=("", "_train"))
    if both.empty:
        return replace(found, sentence='No drift: evaluate "train_eval", then held-out data, after the same step.')
    mean_by_step = both[both["class_id"].isin(group.rare)].groupby("step")["train_test_shift"].mean()
    last = both[both["step"] == both["step"].max()].set_index("class_id")
    null = last["within_var"] / last["count"] + last["within_var_train"] / last["count_train"]
    by_variance = (last["train_test_shift"] - 1) * null / ((last["within_var"] + last["within_var_train"]) / 2)
    ratio = finite(last["train_test_shift"])
    compared, drifts = contrast(ratio, group), contrast(finite(by_variance), group)
    if compared is None or drifts is None:
        told = ", ".join(f"{c}: {value:.2f}" for c, value in list(ratio.items())[:3])
        return replace(found, by_class=ratio, sentence=f"No two groups with a drift to compare (by class: {told}).")
    return replace(
        found,
        value=compared.rare,
        p_value=drifts.p_value,
        effect_size=drifts.rare - drifts.others,
        steps=longest_run(mean_by_step > 1),
        by_class=ratio,
        sentence=(
            f"Train and test means of rare classes have {compared.rare:.1f} times the squared distance that sampling "
            f"gives; by variance {two(drifts.rare)}, others {two(drifts.others)}{told_p(drifts.p_value)}."
        ),
    )
