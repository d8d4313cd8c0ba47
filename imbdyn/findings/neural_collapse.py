"""Neural collapse NC1 to NC4: how nearly features are their class means, and those a simplex with a dual classifier.

Definition. mu_c class means, mu_G their mean, S_W and S_B the covariances within and between classes, w_c the rows.
NC1 = tr(S_W pinv(S_B)) / K: spread of the features about their class means.
NC2 = mean over pairs of |cos(mu_a - mu_G, mu_b - mu_G) + 1/(K-1)| (and std / mean of ||mu_c - mu_G|| beside it).
NC3 = || W/||W||_F - M/||M||_F ||_F^2, M the rows mu_c - mu_G: the classifier is the class means.
NC4 = share of samples where argmax z is not the nearest class mean.
Of two classes NC2 has no value: two centred means are always a simplex.
All are 0 when collapsed. The last evaluation of the training data is read, else of other data, which is then named.

Weighting, since under imbalance it matters by a factor of 5. S_W is pooled over samples (a class weighs as its count),
S_B and mu_G weigh classes alike, as in the code of Papyan et al., which does not divide by K as we do. Beside NC1 stand
the two other ways: everything by count, everything by class. By class, NC1_c has the class's own covariance for S_W, as
in the pooled one a rare class that has not collapsed cannot be seen.

Source: Papyan, Han, Donoho 2020; their notebook in neuralcollapse/neuralcollapse. NC1_c is ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from imbdyn.findings.contrast import DELTA, contrast, defined, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import Groups, groups
from imbdyn.findings.rows import features_split, last_rows, on_split
from imbdyn.findings.words import told_p, two

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace

_NOTHING = "No features: they are read in evaluations, if the classifier is a linear layer."


class _Last(NamedTuple):
    """The last evaluation: its row of `features`, its classes' of `class_features` and `classifier` by class_id."""

    whole: dict[str, float]
    classes: pd.DataFrame
    classifier: pd.DataFrame
    group: Groups
    on: str
    """As `on_split` returns it."""


def nc1(trace: Trace) -> Finding:
    """Measure how far features spread about their class means."""
    last = _last(trace)
    of_class = finite(last.classes["nc1"].where(last.classes["count"] > 1))  # of a single sample: 0 in older traces
    found = _found(last, "nc1", "nc1", "Features are their class means (NC1, S_W by sample, S_B by class).", of_class)
    if found.value is None:
        return found
    compared = contrast(of_class, last.group)
    told = "" if compared is None else f"; of rare classes {compared.rare:.3g}, of others {compared.others:.3g}"
    by_class = f", by class {np.mean(list(of_class.values())):.3g}" if of_class else ""
    return replace(
        found,
        unit="tr(S_W pinv(S_B)) / K",
        sentence=(
            f"NC1{last.on} is {found.value:.3g} (all by sample {last.whole['nc1_sample']:.3g}{by_class})"
            f"{told}{told_p(found.p_value)}."
        ),
    )


def nc2(trace: Trace) -> Finding:
    """Measure how far the class means are from a simplex."""
    last = _last(trace)
    lengths = finite(last.classes["centred_norm"])
    found = _found(last, "nc2", "nc2_angle", "The class means are a simplex (NC2); by class, their length.", lengths)
    if found.value is None:
        return found
    if len(lengths) == 2:
        always = "Two class means are a simplex whatever they are."
        return replace(found, value=None, p_value=None, effect_size=None, steps=None, by_class=None, sentence=always)
    compared = contrast(lengths, last.group)
    told = "" if compared is None else f", rare {compared.rare:.3g} and others {compared.others:.3g} long"
    return replace(
        found,
        unit="mean distance of cosines from the simplex's",
        sentence=(
            f"Class means{last.on} are off the simplex by {found.value:.2f} in cosine and "
            f"{last.whole['nc2_norm']:.2f} in length{told}{told_p(found.p_value)}."
        ),
    )


def nc3(trace: Trace) -> Finding:
    """Measure how far the classifier is from its class means."""
    last = _last(trace)
    cosines = finite(last.classifier["cos_class_mean"])
    found = _found(
        last, "nc3", "nc3", "The classifier is its class means (NC3); by class, the cosine of the two.", cosines
    )
    if found.value is None:
        return found
    compared = contrast(cosines, last.group)
    told = "" if compared is None else f"; cosine of the two: rare {two(compared.rare)}, others {two(compared.others)}"
    return replace(
        found,
        unit="squared distance of normalised matrices",
        sentence=(
            f"Classifier and class means{last.on} differ by {found.value:.2f} (at most 4){told}{told_p(found.p_value)}."
        ),
    )


def nc4(trace: Trace) -> Finding:
    """Measure how often the network decides otherwise than the nearest class mean."""
    last = _last(trace)
    found = _found(last, "nc4", "nc4", "The network decides as the nearest class mean does (NC4).", {})
    if found.value is None:
        return found
    return replace(
        found,
        unit="share of samples",
        sentence=(
            f"The network decides otherwise than the nearest class mean for {found.value:.1%} of samples{last.on}."
        ),
    )


def _last(trace: Trace) -> _Last:
    split = features_split(trace)
    rows = last_rows(trace.features, split)
    whole = {} if rows.empty else {str(name): value for name, value in rows.iloc[-1].items()}
    classes, classifier = (
        last_rows(table, split).set_index("class_id") for table in (trace.class_features, trace.classifier)
    )
    return _Last(whole, classes, classifier, groups(trace), on_split(split))


def _found(last: _Last, name: str, column: str, claim: str, by_class: dict[int, float]) -> Finding:
    """Return what the four have in common: the value at the last evaluation, by class, and the groups' contrast."""
    found = Finding(name=name, claim=claim, compared_with="collapse, where it is 0", effect=DELTA if by_class else "")
    value = defined(last.whole.get(column, np.nan))
    if value is None:
        why = f"The last evaluation has no {name}{_not_finite(last)}." if last.whole else _NOTHING
        return replace(found, sentence=why)
    compared = contrast(by_class, last.group)
    step = int(last.whole["step"])
    return replace(
        found,
        value=value,
        p_value=None if compared is None else compared.p_value,
        effect_size=None if compared is None else compared.delta,
        steps=(step, step),
        by_class=by_class or None,
    )


def _not_finite(last: _Last) -> str:
    diverged = not np.isfinite(last.classes["mean_norm"].astype(float)).all()
    return ": its features are not finite" if diverged else ""
