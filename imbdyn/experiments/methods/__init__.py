"""Methods against imbalance, one file each: what differs from plain cross-entropy, as a formula with its source."""

from imbdyn.experiments.methods.method import Method
from imbdyn.experiments.registry import Registry

__all__ = ["METHODS", "Method"]

#: What `method.name` can name.
METHODS: Registry[Method] = Registry(
    "method.name",
    Method,
    {
        "cross_entropy": "imbdyn.experiments.methods.cross_entropy:CrossEntropy",
        "class_balanced": "imbdyn.experiments.methods.class_balanced:ClassBalanced",
        "focal": "imbdyn.experiments.methods.focal:Focal",
        "ldam": "imbdyn.experiments.methods.ldam:Ldam",
        "logit_adjustment": "imbdyn.experiments.methods.logit_adjustment:LogitAdjustment",
        "oversampling": "imbdyn.experiments.methods.oversampling:Oversampling",
    },
)
