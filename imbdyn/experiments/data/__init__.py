"""Where samples come from, one file a source. Nothing is downloaded, and nothing that a file holds is unpickled."""

from imbdyn.experiments.data.source import Source
from imbdyn.experiments.data.split import SplitData
from imbdyn.experiments.registry import Registry

__all__ = ["SOURCES", "Source", "SplitData"]

#: What `data.name` can name.
SOURCES: Registry[Source] = Registry(
    "data.name",
    Source,
    {
        "digits": "imbdyn.experiments.data.digits:Digits",
        "mnist5k": "imbdyn.experiments.data.mnist5k:Mnist5k",
        "mnist": "imbdyn.experiments.data.mnist:Mnist",
        "cifar10": "imbdyn.experiments.data.cifar:Cifar",
        "cifar100": "imbdyn.experiments.data.cifar:Cifar",
        "image_folder": "imbdyn.experiments.data.image_folder:ImageFolder",
        "medmnist": "imbdyn.experiments.data.medmnist:MedMnist",
        "table": "imbdyn.experiments.data.table:Table",
    },
    wrapper="imbdyn.experiments.data.imported:ImportedDataset",
)
