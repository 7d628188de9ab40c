"""ShaSpec: shared and specific features, one model for any subset of modalities (Wang et al., CVPR 2023).

`segmentation` has the network for volumes, `classification` the one for an image and a spoken digit, `losses` what both
share. Each file says what differs from the paper and its released code.
"""

from mmlib.methods.shaspec.classification import ShaSpecClassifier
from mmlib.methods.shaspec.losses import alignment_loss, domain_loss
from mmlib.methods.shaspec.segmentation import VARIANTS, ShaSpecSegmenter, Variant, recipe, shaspec_loss, variant_of
from mmlib.tasks.segmentation import segmentation_loss

__all__ = [
    "VARIANTS",
    "ShaSpecClassifier",
    "ShaSpecSegmenter",
    "Variant",
    "alignment_loss",
    "domain_loss",
    "recipe",
    "segmentation_loss",
    "shaspec_loss",
    "variant_of",
]
