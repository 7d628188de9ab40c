"""A network of your own: copy this folder, change the class, keep `build`.

python -m mmlib compare --network my_network:build --output comparison --name mine
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmlib.modalities import MRI
from mmlib.networks.unet import masked_images
from mmlib.tasks.segmentation import segmentation_loss

WEIGHTS = Path(__file__).with_name("my_network.safetensors")  # where `train` leaves them


class MyNetwork(nn.Module):
    """One small encoder a modality; the mean over those that are there; three outputs: wt, tc, et.

    Args:
        modalities: M names, the order of the modality axis.
        width: channels.
    """

    def __init__(self, modalities: tuple[str, ...] = MRI, width: int = 16):
        super().__init__()
        self.modalities = modalities
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.InstanceNorm3d(width, affine=True), nn.LeakyReLU(0.01))
            for _ in modalities
        )
        self.head = nn.Sequential(nn.Conv3d(width, width, 3, padding=1), nn.LeakyReLU(0.01), nn.Conv3d(width, 3, 1))

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, D, H, W) float and (B, M) bool, True where a modality is there -> logits (B, 3, D, H, W)."""
        images = masked_images(images, available)  # what is missing is never read, not even NaN
        maps = torch.stack([net(images[:, m : m + 1]) for m, net in enumerate(self.encoders)], dim=1)  # B M c D H W
        share = available / available.sum(dim=1, keepdim=True)  # B M
        return self.head(torch.einsum("bm,bmcdhw->bcdhw", share, maps))


def loss(network: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """The scalar to minimise, and what else is to be logged."""
    return segmentation_loss(network(batch["images"], batch["available"]), batch["regions"]), {}


def train(folder: Path, steps: int = 1000, cases: int = 100) -> None:
    """Train on the phantom, as the networks of the book were trained; a call that was cut off goes on where it was."""
    from mmlib.data.batches import Crops, Samples
    from mmlib.data.brats import BratsFolder
    from mmlib.data.phantoms.brain import write_brats
    from mmlib.training import fit

    write_brats(folder / "phantom", range(cases))  # phantom-0000 to phantom-0099: none of them is tested
    read = BratsFolder(folder / "phantom")
    samples = Samples(read.__getitem__, list(read)[:cases], MRI)
    batches = Crops(samples, size=32, batch_size=4, availability="uniform-subsets", seed=0, foreground=0.33)
    torch.manual_seed(0)
    network = MyNetwork()
    fit(network, batches, loss, steps=steps, lr=8e-3, seed=0, folder=folder, name="my_network")
    (folder / "my_network.safetensors").replace(WEIGHTS)


def build() -> nn.Module:
    """The network that is compared, with its weights where it was trained."""
    network = MyNetwork()
    if WEIGHTS.is_file():
        network.load_state_dict(load_file(WEIGHTS))
    return network


if __name__ == "__main__":
    train(Path("build"))
