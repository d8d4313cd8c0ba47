"""The networks that are trained, one file each, and the options of each: its fields are the keys of [model]."""

from imbdyn.experiments.models.small_conv_net import SmallConvNet
from imbdyn.experiments.models.spec import ModelSpec
from imbdyn.experiments.registry import Registry

__all__ = ["MODELS", "ModelSpec", "SmallConvNet"]

#: What `model.name` can name.
MODELS: Registry[ModelSpec] = Registry(
    "model.name",
    ModelSpec,
    {
        "small_conv_net": "imbdyn.experiments.models.small_conv_net:SmallConvNetSpec",
        "mlp": "imbdyn.experiments.models.mlp:MlpSpec",
        "lenet": "imbdyn.experiments.models.lenet:LeNetSpec",
        "resnet20": "imbdyn.experiments.models.cifar_resnet:CifarResNetSpec",
        "resnet32": "imbdyn.experiments.models.cifar_resnet:CifarResNetSpec",
        "vit": "imbdyn.experiments.models.vit:VitSpec",
    },
    by_prefix={"timm": "imbdyn.experiments.models.from_timm:TimmSpec"},
    wrapper="imbdyn.experiments.models.imported:ImportedModel",
)
