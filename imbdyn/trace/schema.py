"""The tables of a trace: every column with its type, unit, formula and source. The one place where they are named.

Notation: c a class, n_c its samples, y the label, z the logits, p = softmax(z), w a parameter, dw its update in one
optimizer step, g the gradient of the loss, G_c the part of g that flows through the rows of class c (sum_c G_c = g).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

#: Version of everything in this file; written to run.json and to every part.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Column:
    """One column of a table: what it holds and how it is computed."""

    name: str
    type: pa.DataType
    unit: str
    formula: str
    source: str = ""

    def field(self) -> pa.Field:
        """Return the Arrow field, with unit, formula and source in its metadata."""
        return pa.field(
            self.name, self.type, metadata={"unit": self.unit, "formula": self.formula, "source": self.source}
        )


@dataclass(frozen=True)
class Table:
    """One subject of a trace: `key` names the columns that tell its rows apart."""

    name: str
    subject: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def schema(self) -> pa.Schema:
        """Return the Arrow schema, with the schema version, the subject and the key in its metadata."""
        return pa.schema(
            [column.field() for column in self.columns],
            metadata={
                "imbdyn.schema_version": str(SCHEMA_VERSION),
                "imbdyn.table": self.name,
                "imbdyn.subject": self.subject,
                "imbdyn.key": ",".join(self.key),
            },
        )


_NAME = pa.dictionary(pa.int32(), pa.string())
_INT, _REAL, _CLASS = pa.int64(), pa.float64(), pa.int32()

_STEP = Column(
    "step", _INT, "optimizer steps", "number of optimizer steps done, from 1; an evaluation has the last one"
)
_SINCE = Column("since_step", _INT, "optimizer steps", "sums run over since_step < s <= step")
_EPOCH = Column("epoch", _INT, "epochs", "monitor.epoch when the row was made")
_SPLIT = Column("split", _NAME, "", "'train' for training windows, else the name given to monitor.evaluate()")
_CLASS_ID = Column("class_id", _CLASS, "class", "index of the class")
_CLASS_A = Column("class_a", _CLASS, "class", "index of the first class, class_a < class_b")
_CLASS_B = Column("class_b", _CLASS, "class", "index of the second class")
_PARAMETER = Column("parameter", _NAME, "", "name in model.named_parameters(); '*' is all covered parameters together")
_ONE_PARAMETER = Column("parameter", _NAME, "", "name in model.named_parameters()")
_LAYER = Column("layer", _NAME, "", "name in model.named_modules() of the classifier whose input the features are")

_PAPYAN = "Papyan, Han, Donoho 2020"
_MARGIN = "Cao et al. 2019, arXiv 1906.07413"
_EQL = "Tan et al. 2021, arXiv 2012.08548, for softmax"
_ROTATION = "Kosson, Messmer, Jaggi 2024, arXiv 2305.17212"

STEPS = Table(
    "steps",
    "one optimizer step that closed a window, or one evaluation",
    ("step", "split"),
    (
        _STEP,
        _SINCE,
        _EPOCH,
        _SPLIT,
        Column("count", _INT, "samples", "samples whose logits were read"),
        Column(
            "loss",
            _REAL,
            "nats",
            "mean of -log p_y over those samples (plain cross-entropy, whatever the criterion)",
        ),
        Column("accuracy", _REAL, "share", "share of samples with argmax z = y"),
        Column("balanced_accuracy", _REAL, "share", "mean recall of the classes that are present"),
        Column("grad_norm", _REAL, "", "||g|| of all parameters as the optimizer saw it; null when not sampled"),
        Column("lr", _REAL, "", "learning rate of the first parameter group"),
        Column(
            "step_seconds",
            _REAL,
            "s",
            "mean wall-clock time of an optimizer step of the window, all included",
        ),
        Column("overhead_seconds", _REAL, "s", "what instrumentation took in the whole window, part of that time"),
        Column(
            "grad_scale",
            _REAL,
            "",
            "common factor s with p.grad = s sum_c G_c (loss scale, clipping, averaging); null with several ranks, "
            "and where not all batches were read",
        ),
        Column("sampled", pa.bool_(), "", "whether class gradients were read in this step"),
        Column(
            "batches",
            _INT,
            "batches",
            "monitor.batch calls of this step (micro-batches), or of the evaluation",
        ),
        Column("gradient_batches", _INT, "batches", "how many of them are in the class gradients"),
    ),
)

CLASSES = Table(
    "classes",
    "one class in one window or evaluation, from the logits",
    ("step", "split", "class_id"),
    (
        _STEP,
        _SINCE,
        _EPOCH,
        _SPLIT,
        _CLASS_ID,
        Column("count", _INT, "samples", "n_c: samples of the class whose logits were read"),
        Column("loss", _REAL, "nats", "mean of -log p_y over y = c; null if n_c = 0"),
        Column("accuracy", _REAL, "share", "recall: share of y = c with argmax z = c; null if n_c = 0"),
        Column("precision", _REAL, "share", "share of argmax z = c with y = c; null if never predicted"),
        Column("margin", _REAL, "logits", "mean of z_y - max_(k != y) z_k over y = c; null if n_c = 0", _MARGIN),
        Column("confidence", _REAL, "share", "mean of p_y over y = c; null if n_c = 0"),
        Column("predicted", _INT, "samples", "samples with argmax z = c"),
        Column("positive_grad", _REAL, "", "sum of 1 - p_c over y = c", _EQL),
        Column("negative_grad", _REAL, "", "sum of p_c over y != c", _EQL),
    ),
)

PARAMETERS = Table(
    "parameters",
    "one parameter in one sampled optimizer step",
    ("step", "parameter"),
    (
        _STEP,
        _ONE_PARAMETER,
        Column("weight_norm", _REAL, "", "||w|| after the step"),
        Column("grad_norm", _REAL, "", "||p.grad|| as the optimizer saw it"),
        Column("update_norm", _REAL, "", "||dw||"),
        Column("update_ratio", _REAL, "", "||dw|| / ||w||"),
        Column("cos_weight_update", _REAL, "", "<w, dw> / (||w|| ||dw||), w after the step"),
        Column("rotation", _REAL, "rad", "angle between w before and after the step", _ROTATION),
        Column(
            "residual",
            _REAL,
            "",
            "|sum_ab <G_a, G_b> - ||p.grad||^2| / (sum_c ||G_c||)^2; null if not covered, and with several ranks",
        ),
    ),
)

CLASS_GRADIENTS = Table(
    "class_gradients",
    "one class's part of one parameter's gradient in one sampled step",
    ("step", "parameter", "class_id"),
    (
        _STEP,
        _PARAMETER,
        _CLASS_ID,
        Column("count", _INT, "samples", "n_c: samples of the class in the step; classes without any have no row"),
        Column(
            "grad_norm",
            _REAL,
            "",
            "||G_c||; carries n_c/N: a contribution, not a mean",
            "Francazi et al. 2023, arXiv 2207.00391",
        ),
        Column("grad_cos_total", _REAL, "", "cos(G_c, g)"),
        Column(
            "grad_share",
            _REAL,
            "share",
            "<G_c, g> / ||g||^2; sums to 1 over classes, negative if c opposes the step",
        ),
        Column(
            "sample_norm_sq",
            _REAL,
            "",
            "sum over samples i of class c of ||g_i||^2, g_i the sample's part of g; null where samples are not told "
            "apart: soft labels, convolutions in several batches a step, functions without a rule",
        ),
        Column(
            "grad_noise",
            _REAL,
            "samples",
            "tr(S_c) / |m_c|^2 of the samples' gradients, both unbiased; null if n_c < 2 or |m_c|^2 <= 0",
            "McCandlish et al. 2018, arXiv 1812.06162",
        ),
    ),
)

CLASS_GRADIENT_PAIRS = Table(
    "class_gradient_pairs",
    "two classes' gradients of one parameter in one sampled step",
    ("step", "parameter", "class_a", "class_b"),
    (
        _STEP,
        _PARAMETER,
        _CLASS_A,
        _CLASS_B,
        Column(
            "grad_cos",
            _REAL,
            "",
            "cos(G_a, G_b); below 0 the classes are in conflict",
            "Yu et al. 2020, arXiv 2001.06782",
        ),
    ),
)

FEATURES = Table(
    "features",
    "the classifier's input in one evaluation: neural collapse",
    ("step", "split", "layer"),
    (
        _STEP,
        _SPLIT,
        _LAYER,
        Column("count", _INT, "samples", "samples whose features were read"),
        Column(
            "nc1",
            _REAL,
            "",
            "tr(S_W pinv(S_B)) / K; S_W pooled over samples, S_B unweighted over classes about the mean of class "
            "means, K the classes with samples; null when the features of the evaluation passed the memory bound",
            _PAPYAN,
        ),
        Column(
            "nc1_sample",
            _REAL,
            "",
            "nc1 with every class weighing as its count, in S_B and the global mean too; null as nc1",
            _PAPYAN,
        ),
        Column("nc2_norm", _REAL, "", "std / mean of ||mu_c - mu_G||", _PAPYAN),
        Column("nc2_angle", _REAL, "", "mean over pairs of |cos(mu_a - mu_G, mu_b - mu_G) + 1/(K-1)|", _PAPYAN),
        Column("nc3", _REAL, "", "||W/||W||_F - M/||M||_F||_F^2, M the centred class means", _PAPYAN),
        Column(
            "nc4",
            _REAL,
            "share",
            "share of samples where argmax z is not the nearest class mean; null as nc1",
            _PAPYAN,
        ),
    ),
)

CLASS_FEATURES = Table(
    "class_features",
    "the classifier's input in one evaluation, of one class",
    ("step", "split", "layer", "class_id"),
    (
        _STEP,
        _SPLIT,
        _LAYER,
        _CLASS_ID,
        Column("count", _INT, "samples", "n_c"),
        Column("mean_norm", _REAL, "", "||mu_c||"),
        Column("centred_norm", _REAL, "", "||mu_c - mu_G||, mu_G the mean of class means"),
        Column("within_var", _REAL, "", "trace of the sample covariance of the class's features; null if n_c < 2"),
        Column(
            "nc1",
            _REAL,
            "",
            "tr(S_W pinv(S_B)) / K with the covariance of the class's own samples (divided by n_c) as S_W, S_B as in "
            "features.nc1: weighted by n_c / N they sum to that; null as that, and if n_c < 2",
            _PAPYAN,
        ),
        Column("cos_global", _REAL, "", "cos(mu_c, mu_G), mu_G the mean of class means"),
        Column(
            "train_test_shift",
            _REAL,
            "",
            "||mu_c - mu_c'||^2 / (tr(S_c) / n_c + tr(S_c') / n_c'), ' the evaluation 'train_eval' at the same step; "
            "1 is expected of exchangeable features; null without it",
            "after Ye et al. 2020, arXiv 2001.01385",
        ),
    ),
)

CLASS_FEATURE_PAIRS = Table(
    "class_feature_pairs",
    "two classes in one evaluation: how their rows of the classifier and their means lie; up to 100 classes",
    ("step", "split", "layer", "class_a", "class_b"),
    (
        _STEP,
        _SPLIT,
        _LAYER,
        _CLASS_A,
        _CLASS_B,
        Column(
            "row_cos",
            _REAL,
            "",
            "cos(w_a, w_b), not centred; null if a row is 0",
            "Fang, He, Long, Su 2021, arXiv 2101.12699",
        ),
        Column(
            "mean_cos",
            _REAL,
            "",
            "cos(mu_a - mu_G, mu_b - mu_G), mu_G the mean of class means; null without samples of both",
            _PAPYAN,
        ),
    ),
)

CLASSIFIER = Table(
    "classifier",
    "one class's row of the classifier, after a sampled step (split 'train') or in an evaluation",
    ("step", "split", "class_id"),
    (
        _STEP,
        _SPLIT,
        _CLASS_ID,
        Column("row_norm", _REAL, "", "||w_c||", "Kang et al. 2020, arXiv 1910.09217"),
        Column("bias", _REAL, "logits", "b_c; null without a bias"),
        Column("row_update_norm", _REAL, "", "||dw_c||; null in an evaluation"),
        Column(
            "row_rotation",
            _REAL,
            "rad",
            "angle between w_c before and after the step; null in an evaluation",
            _ROTATION,
        ),
        Column(
            "cos_class_mean",
            _REAL,
            "",
            "cos(w_c - mean of rows, mu_c - mu_G) in an evaluation; null in a step, and without a sample of c",
            _PAPYAN,
        ),
    ),
)

#: Every table of a trace by name, in the order in which they are shown.
TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        STEPS,
        CLASSES,
        PARAMETERS,
        CLASS_GRADIENTS,
        CLASS_GRADIENT_PAIRS,
        FEATURES,
        CLASS_FEATURES,
        CLASS_FEATURE_PAIRS,
        CLASSIFIER,
    )
}
