"""What these networks need before timm is imported."""

import torchvision_operators  # noqa: F401
