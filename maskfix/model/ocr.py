"""Object-contextual representations, the head of the paper's HRNets, for one object class.

The features of all pixels are averaged, weighted by a first guess of the mask (gather), and every
pixel receives that context beside its own features (distribute). In general a pixel attends to the
regions of all classes; with one class that attention is a softmax over a single region, so it is
identically 1, and the layers that compute it (`f_pixel`, `f_object`) never touch the result. They
are kept, because published checkpoints hold them, and never run: they get no gradients, and their
batch-norm statistics stay as they are.
"""

from __future__ import annotations

from torch import Tensor, cat, nn

from maskfix.model.blocks import conv


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    norm_and_relu = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
    return [conv(inputs, outputs, 1), norm_and_relu]


class ObjectContextBlock(nn.Module):
    """Turns the gathered context into what every pixel receives."""

    def __init__(self, channels: int, keys: int) -> None:
        super().__init__()
        self.f_pixel = nn.Sequential(*_layer(channels, keys), *_layer(keys, keys))
        self.f_object = nn.Sequential(*_layer(channels, keys), *_layer(keys, keys))
        self.f_down = nn.Sequential(*_layer(channels, keys))
        self.f_up = nn.Sequential(*_layer(keys, channels))

    def forward(self, context: Tensor, height: int, width: int) -> Tensor:
        """(B, C, 1, 1) -> (B, C, height, width), constant over each image.

        `f_up` runs on one vector an image; in training on all pixels, so that its batch norm
        counts samples as the published training does.
        """
        value = self.f_down(context)
        if self.training:
            value = value.expand(-1, -1, height, width)
        up: Tensor = self.f_up(value)
        return up.expand(-1, -1, height, width)

    def skipped_macs(self, pixels: int) -> int:
        """Multiply-adds an image that the general form would spend and this one does not."""
        convolutions = [layer for layer in self.f_pixel if isinstance(layer, nn.Conv2d)]
        dead = sum(layer.weight.numel() for layer in convolutions)  # f_object has the same shapes
        channels, keys = convolutions[0].in_channels, convolutions[0].out_channels
        attention = 2 * keys * pixels
        return dead * (pixels + 1) + channels * keys * (pixels - 1) + attention


class ObjectContextHead(nn.Module):
    """Gather and distribute. In training it needs at least two images (batch norm of vectors).

    Args:
        channels: of the pixel features.
        keys: inner channels of the attention.
    """

    def __init__(self, channels: int, keys: int) -> None:
        super().__init__()
        self.object_context_block = ObjectContextBlock(channels, keys)
        self.conv_bn_dropout = nn.Sequential(*_layer(2 * channels, channels), nn.Dropout2d(0.05))

    def forward(self, features: Tensor, guess: Tensor) -> Tensor:
        """features (B, C, H, W) and logits of the first guess (B, 1, H, W) -> (B, C, H, W)."""
        height, width = features.shape[2:]
        weights = guess.flatten(2).softmax(dim=2)  # (B, 1, H*W)
        context = features.flatten(2) @ weights.transpose(1, 2)  # (B, C, 1)
        context = self.object_context_block(context[..., None], height, width)
        mixed: Tensor = self.conv_bn_dropout(cat([context, features], dim=1))
        return mixed
