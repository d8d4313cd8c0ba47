"""The five op families. Each has one public function, one float64 reference and one `torch.library` name."""

from imbdyn.ops.class_gram import ClassGram, class_gram, class_gram_conv, class_gram_linear, class_gram_samples
from imbdyn.ops.class_logits import ClassLogits, add_class_logits, class_logits
from imbdyn.ops.class_moments import ClassMoments, add_class_moments, class_moments
from imbdyn.ops.norm_gradients import NormGradients, norm_gradients, norm_gradients_rows
from imbdyn.ops.parameter_norms import ParameterNorms, parameter_norms

__all__ = [
    "ClassGram",
    "ClassLogits",
    "ClassMoments",
    "NormGradients",
    "ParameterNorms",
    "add_class_logits",
    "add_class_moments",
    "class_gram",
    "class_gram_conv",
    "class_gram_linear",
    "class_gram_samples",
    "class_logits",
    "class_moments",
    "norm_gradients",
    "norm_gradients_rows",
    "parameter_norms",
]
