"""Which classes of a run are rare.

A run whose configuration names its `rare_classes` is taken at its word (in a balanced run they are the group that is
compared with the others). In any other, classes are grouped by their
training samples as usual since Liu et al. 2019, arXiv 1904.05160: many-shot (more than 100), medium-shot (20 to 100)
and few-shot (fewer than 20). Rare are those of the lowest group that has any, if a higher one has some too. A class
without any training sample is in no group: nothing can be learned of it.

A user's configuration may mean something else by `rare_classes` or `class_counts`: what is no list of class_ids, or of
a number for each class, is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import bidirectional

from imbdyn.trace.run_file import TraceError

if TYPE_CHECKING:
    from imbdyn.trace import Trace

_MANY, _FEW = 100, 20
_SHOTS = (f"few-shot, fewer than {_FEW}", f"medium-shot, {_FEW} to {_MANY}", f"many-shot, more than {_MANY}")

#: Unicode's bidirectional classes of the explicit marks.
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")

#: What a run says that has only evaluations, of a network that was changed after its training, say.
UNTRAINED = "No training sample was seen in this run, so it says nothing on (im)balance."

#: Counts are called equal while the largest is at most this multiple of the smallest.
_BALANCED_UP_TO = 1.5


class Groups(NamedTuple):
    """The classes of a run in two groups; those without training samples are in neither, unless they are named."""

    rare: list[int]
    others: list[int]
    rule: str
    """Where the groups come from, in a few words."""


def check_one_rank(trace: Trace) -> None:
    """Raise TraceError if several ranks wrote the run, since each has the numbers of its own samples only."""
    if trace.has_ranks:
        raise TraceError(
            f"{trace.path} was written by several ranks, whose rows are not added up: read its tables, each of which "
            "has a column rank"
        )


def class_counts(trace: Trace) -> list[int]:
    """Return the training samples of each class: as configured, else as counted in the first epoch.

    Raises: TraceError as check_one_rank.
    """
    check_one_rank(trace)
    known = _whole_numbers(configuration(trace).get("class_counts"))
    if known is None or len(known) != trace.run["num_classes"]:
        known = trace.run["class_counts"]
    if known is None:  # a run that goes on, or was killed, before the counts were written
        rows = trace.classes[trace.classes["split"] == "train"]
        first = rows[rows["epoch"] == rows["epoch"].min()]
        known = first.groupby("class_id")["count"].sum().reindex(range(trace.run["num_classes"]), fill_value=0)
    return [int(count) for count in known]


def class_names(trace: Trace) -> list[str]:
    """Return the names of the classes; one that is empty is called by its class_id.

    Characters that turn the direction of what follows are left out: they would turn the numbers behind a name.
    """
    names = ("".join(ch for ch in str(name) if bidirectional(ch) not in _TURNING) for name in trace.run["class_names"])
    return [name if name.strip() else f"class {c}" for c, name in enumerate(names)]


def configuration(trace: Trace) -> dict[str, Any]:
    """Return the user's configuration as far as it has keys; it may be anything that JSON can hold, or nothing."""
    config = trace.run["config"]
    return config if isinstance(config, dict) else {}


def _named_rare(trace: Trace) -> list[int] | None:
    """Return the class_ids that the configuration names; None if it names none."""
    named = _whole_numbers(configuration(trace).get("rare_classes"))
    return named if named is not None and all(c < trace.run["num_classes"] for c in named) else None


def _whole_numbers(value: Any) -> list[int] | None:
    """Return a list of whole numbers from 0 on; None for anything else."""
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        return None
    return value


def is_balanced(trace: Trace) -> bool:
    """Return whether the largest class has at most 1.5 times the samples of the smallest, and any at all."""
    counts = class_counts(trace)
    return any(counts) and max(counts) <= _BALANCED_UP_TO * min(counts)


def groups(trace: Trace) -> Groups:
    """Return the rare classes of a run and the others; without any rare class, `rare` is empty."""
    counts = class_counts(trace)
    named = _named_rare(trace)
    if named is not None:
        return _split(
            counts, named, "rare in the imbalanced run" if is_balanced(trace) else "rare by its configuration"
        )
    if not any(counts):
        return _split(counts, [], "no class, as no training sample was seen")
    seen = _seen(counts)
    shots = {c: _shot(counts[c]) for c in seen}
    lowest, highest = min(shots.values()), max(shots.values())
    rare = [c for c, shot in shots.items() if shot == lowest < highest]
    label = ("few-shot, fewer than 20", "medium-shot, 20 to 100", "many-shot")[lowest]
    unseen = len(counts) - len(seen)
    left_out = f"; classes without any are left out ({unseen})" if unseen else ""
    of_all = "; counts are of the whole run, as monitor.epoch was not set" if _counted_throughout(trace) else ""
    rule = f"{label} samples (Liu et al. 2019)" if rare else f"no class, as all are {label}"
    if not rare and not is_balanced(trace):
        rule += '; Monitor config={"rare_classes": [...]} names some'
    return _split(counts, rare, rule + left_out + of_all)


def shown_groups(trace: Trace) -> list[tuple[str, list[int]]]:
    """Return label and classes of the groups that stand for many classes: rarest first, none is empty.

    The rare classes and the others where the configuration names them, else few-, medium- and many-shot classes; and
    those without training samples, if there are any.
    """
    counts = class_counts(trace)
    seen = _seen(counts)
    unseen = [c for c in range(len(counts)) if c not in seen]
    named = _named_rare(trace)
    if named is not None:
        found = groups(trace)
        labelled = [("rare", found.rare), ("other", found.others)]
        unseen = [c for c in unseen if c not in found.rare]
    else:
        labelled = [(label, [c for c in seen if _shot(counts[c]) == shot]) for shot, label in enumerate(_SHOTS)]
    labelled.append(("unseen, none", unseen))
    return [(label, classes) for label, classes in labelled if classes]


def _counted_throughout(trace: Trace) -> bool:
    """Whether the counts are of all training steps, of perhaps many epochs, as the run does not say its epochs."""

    def no_epoch() -> bool:
        rows = trace.classes
        epochs = rows.loc[rows["split"] == "train", "epoch"]
        return len(epochs) > 0 and bool(epochs.isna().all())

    return "class_counts" not in configuration(trace) and trace.kept("no epoch is said", no_epoch)


def _shot(count: int) -> int:
    """Return 0 for a few-shot class, 1 for a medium-shot and 2 for a many-shot one."""
    return 0 if count < _FEW else 1 if count <= _MANY else 2


def _seen(counts: Sequence[int]) -> list[int]:
    """Return the classes that have training samples; all, where none is known to have any."""
    return [c for c, count in enumerate(counts) if count > 0] or list(range(len(counts)))


def _split(counts: Sequence[int], rare: Sequence[int], rule: str) -> Groups:
    return Groups(sorted(set(rare)), [c for c in _seen(counts) if c not in rare], rule)


def nothing_to_compare(trace: Trace) -> str | None:
    """Say why a run says nothing on what imbalance does, or return None if it does."""
    if not any(class_counts(trace)):
        return UNTRAINED
    if is_balanced(trace):
        counts = class_counts(trace)
        equal = (
            "equal counts" if max(counts) == min(counts) else f"counts that are alike ({min(counts)} to {max(counts)})"
        )
        said = f"The classes of this run have {equal}, so it says nothing on imbalance."
        if "class_counts" in configuration(trace):
            return said
        return f'{said} (As drawn; if a sampler evens them out, give Monitor config={{"class_counts": [...]}}.)'
    return one_group(groups(trace))


def one_group(found: Groups) -> str | None:
    """Say that there are no two groups to compare, or return None if there are."""
    return None if found.rare and found.others else f"No classes to compare; rare: {found.rule}."
