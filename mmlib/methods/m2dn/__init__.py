"""M2DN: whichever modalities are missing, start them as noise and denoise them beside those that are there.

Paper: X. Meng, K. Sun, J. Xu, X. He, D. Shen, "Multi-modal Modality-masked Diffusion Network for Brain MRI Synthesis
With Random Modality Missing", IEEE Transactions on Medical Imaging 43(7), 2024. Implemented: its figures 2 and 3 (the
reverse process, the network) and the ablations of its Table VII. There is no public code; the noise schedule and the
samplers are those of Ho et al. (arXiv 2006.11239) and Song et al. (arXiv 2010.02502), as MONAI has them.

Conventions. `available` True = acquired; the paper's mask is the inverse (1 = missing) and exists only inside
`MultiModalDenoiser`. Time t runs from 1 (nearly clean) to T = 1000 (noise), as in the paper; `alpha_bar[t - 1]`
is the share of signal left at t, and MONAI's schedulers count the same steps from 0.

What differs
- UNVERIFIED, because the paper does not say: T and the betas (linear, 1e-4 to 0.02), the number of reverse steps, the
  time embedding (sinusoids, then two layers), the groups of GroupNorm (32 or the largest
  divisor: with 16 channels that is one channel a group, an instance norm), up-sampling (by
  repetition), the loss's reduction (mean over batch, modalities and pixels), clamping of predictions to [-1, 1].
- The figure draws no skip connections although the text calls the network U-shaped. `skips=False` is as drawn; with
  `skips=True` the maps of the way down, after their ResBlocks and a 1x1 convolution, are added to those of the way up.
- `levels=3` is the figure's fusion block; fewer levels suit small slices. Down-sampling by means of 2 x 2 pixels, which
  is what bilinear interpolation by one half does.
- `UNetDenoiser` is this book's own choice of network (variant `unet`): the U-Net that diffusion models usually have, a
  loss over the missing modalities alone, a moving average of weights. No part of it is the paper's.
- A prediction of the noise instead of the images (`NoiseDenoiser`) is a comparison of this book.
"""

from mmlib.methods.m2dn.diffusion import (
    VARIANTS,
    NoiseDenoiser,
    NoisedSlices,
    T,
    Variant,
    denoising_loss,
    diffuse,
    linear_alpha_bar,
    m2dn_loss,
    no_noise_loss,
    recipe,
    respaced,
    sample,
)
from mmlib.methods.m2dn.network import MultiModalDenoiser, UNetDenoiser, load_weights

__all__ = [
    "MultiModalDenoiser",
    "NoiseDenoiser",
    "NoisedSlices",
    "T",
    "UNetDenoiser",
    "VARIANTS",
    "Variant",
    "denoising_loss",
    "diffuse",
    "linear_alpha_bar",
    "load_weights",
    "m2dn_loss",
    "no_noise_loss",
    "recipe",
    "respaced",
    "sample",
]
