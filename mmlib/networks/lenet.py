"""The two small encoders of audiovision-MNIST, which every method of that task shares.

Source: the description of mengmenm/SMIL at 0d0e827 (no licence; nothing of it is copied): a LeNet-5 for the image and
"SNetPluse" for the audio. The ShaSpec paper takes its encoders "from SMIL" without saying more.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_FEATURES = 160
AUDIO_FEATURES = 320
CLASSES = 10


class ImageTrunk(nn.Module):
    """The convolutions of LeNet-5 as in SMIL: 28x28 image -> 160 features; 1,390 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 5, 5)
        self.conv2 = nn.Conv2d(5, 10, 5)
        self.dropout = nn.Dropout(0.5)

    def features(self, image: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 160)."""
        x = F.relu(F.max_pool2d(self.conv1(image), 2))  # B 5 12 12
        return F.relu(F.max_pool2d(self.dropout(self.conv2(x)), 2)).flatten(1)  # B 10 4 4 -> B 160

    forward = features


class ImageNet(ImageTrunk):
    """`ImageTrunk` with its own head: image -> 10 logits; 6,872 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(IMAGE_FEATURES, 32)
        self.fc2 = nn.Linear(32, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> logits (B, 10)."""
        return self.fc2(F.relu(self.fc1(self.features(image))))


class AudioTrunk(nn.Module):
    """The convolutions of SMIL's audio net: 20x20 cepstral coefficients -> 320 features; 10,412 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 2)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 48, 2)
        self.bn2 = nn.BatchNorm2d(48)
        self.conv3 = nn.Conv2d(48, 20, 2)
        self.bn3 = nn.BatchNorm2d(20)
        self.dropout = nn.Dropout(0.25)

    def features(self, audio: Tensor) -> Tensor:
        """(B, 1, 20, 20) -> (B, 320)."""
        x = F.relu(self.bn1(self.conv1(audio)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))  # B 20 17 17
        return self.dropout(F.max_pool2d(x, 2, 4)).flatten(1)  # B 20 4 4 -> B 320

    forward = features


class AudioNet(AudioTrunk):
    """`AudioTrunk` with its own head: cepstral coefficients -> 10 logits; 67,254 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(AUDIO_FEATURES, 160)
        self.fc2 = nn.Linear(160, 32)
        self.fc3 = nn.Linear(32, CLASSES)
        self.dropout_head = nn.Dropout(0.4)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, 1, 20, 20) -> logits (B, 10)."""
        x = self.dropout(F.relu(self.fc1(self.features(audio))))
        return self.fc3(self.dropout_head(F.relu(self.fc2(x))))
