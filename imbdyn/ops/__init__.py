"""The four op families. Each has one public function, one float64 reference and one `torch.library` name."""

from imbdyn.ops.class_gram import ClassGram, class_gram, class_gram_conv, class_gram_linear
from imbdyn.ops.class_logits import ClassLogits, add_class_logits, class_logits
from imbdyn.ops.class_moments import ClassMoments, class_moments
from imbdyn.ops.parameter_norms import ParameterNorms, parameter_norms

__all__ = [
    "ClassGram",
    "ClassLogits",
    "ClassMoments",
    "ParameterNorms",
    "add_class_logits",
    "class_gram",
    "class_gram_conv",
    "class_gram_linear",
    "class_logits",
    "class_moments",
    "parameter_norms",
]
