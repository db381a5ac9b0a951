"""Networks of torchvision and timm with random weights: exported, converted, verified. See tools/architectures.py."""
