"""torchvision, which timm imports, beside a torch build that its compiled operators were not built for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

# The registry's torchvision is built for CUDA: beside torch's CPU build its library does not load, and the import ends
# in "operator torchvision::nms does not exist", since fakes are registered for these two whether it loaded or not.
# No classifier calls them: it is enough that they have a schema. Where the library loads, it defines them itself.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_torchvision = find_spec("torchvision")
if _torchvision is not None and _torchvision.origin is not None:
    try:
        torch.ops.load_library(str(Path(_torchvision.origin).with_name("_C.so")))
    except OSError:
        STUBS = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _OPERATORS:
            STUBS.define(schema)
