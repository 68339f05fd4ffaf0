"""`lite`: the paper's idea on a network small enough for machines without a GPU.

As in the paper: clicks as disks, the previous mask as an input, fused by Conv1S (section 3.1) after
the first convolution, one feed-forward pass. Beyond it: an EfficientNet-Lite0 trunk (ReLU6, no
squeeze-excitation, so batch norm folds away), two self-attention blocks at stride 16 in which every
place sees which places were clicked, a light top-down decoder to stride 2 that sees clicks and
mask again at every scale, and a gate: each pixel of the result is ``delta + gate * mask``, so that
leaving a right pixel alone is the easy thing to do.

Shape comments: B batch, C channels, H, W network-input pixels (padded to multiples of 32).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfix.errors import CheckpointError
from maskfix.model.click_maps import ClickMaps
from maskfix.model.convolution import ConvNorm, TrunkConv, convolve
from maskfix.model.network import IMAGENET_MEAN, IMAGENET_STD, ClickNetwork, Features

# EfficientNet-Lite0: (expansion, output channels, repeats, stride, kernel) a stage
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
TAPS = (2, 4, 10, 15)  # the blocks whose outputs the decoder uses: strides 4, 8, 16, 32
STEM_CHANNELS = 32
MASK_LOGIT = 4.0  # what the gate multiplies: -4 outside the given mask, +4 inside


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection, and a shortcut where it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = TrunkConv(inputs, inner) if expansion > 1 else nn.Identity()
        self.depthwise = TrunkConv(inner, inner, kernel, stride, groups=inner)
        self.project = TrunkConv(inner, outputs, linear=True)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class Encoder(nn.Module):
    """EfficientNet-Lite0 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = TrunkConv(3, STEM_CHANNELS, 3, 2)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for expansion, outputs, repeats, stride, kernel in STAGES:
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, expansion, step, kernel))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)

    def forward(self, rgb: Tensor, fused: Tensor) -> list[Tensor]:
        """rgb (B,3,H,W), fused (B,32,H/2,W/2) added after the stem -> strides 2, 4, 8, 16, 32."""
        x = self.stem(rgb) + fused
        features = [x]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                features.append(x)
        return features


class MapsTransform(nn.Module):
    """Conv1S: the encoding at the shape of the stem's output, scaled by one learnt number."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, STEM_CHANNELS, 3, 2, 1)
        self.mix = nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 1)
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, encoding: Tensor) -> Tensor:
        x = F.relu6(self.down(encoding), inplace=True)
        # To scale the kernel spares a pass over memory; `mix` is not called as a layer.
        weight, bias = self.mix.weight * self.scale, self.mix.bias
        assert bias is not None
        return convolve(x, weight, bias * self.scale, linear=True)


class AttentionBlock(nn.Module):
    """Pre-norm self-attention over all places, position given by a depthwise convolution."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x + self.position(x)
        tokens: Tensor = x.flatten(2).transpose(1, 2)  # (B, h*w, C)
        shape = (batch, -1, 3, self.heads, channels // self.heads)
        q, k, v = self.qkv(self.norm1(tokens)).view(shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        tokens = tokens + self.proj(mixed.reshape(batch, -1, channels))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class UpBlock(nn.Module):
    """One step down the pyramid: coarse features doubled, joined with the finer ones."""

    def __init__(self, coarse: int, fine: int, outputs: int, kernel: int = 5) -> None:
        super().__init__()
        self.reduce = ConvNorm(coarse, outputs, linear=True)
        self.lateral = ConvNorm(fine, outputs, linear=True)
        self.depthwise = ConvNorm(outputs, outputs, kernel, groups=outputs)
        self.project = ConvNorm(outputs, outputs)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        x: Tensor = _resize(self.reduce(coarse), fine.shape[2], fine.shape[3])
        x = x + self.lateral(fine)
        refined: Tensor = self.project(self.depthwise(F.relu6(x)))
        return x + refined


class Lite(ClickNetwork):
    """EfficientNet-Lite0 + attention + top-down decoder; see the module's docstring.

    Args:
        radius: of the click disks, in network-input pixels.
    """

    backbone_prefixes = ("encoder.",)
    precise = ("encoder.stem", "encoder.blocks.0", "encoder.blocks.1")

    def __init__(self, radius: float = 5) -> None:
        super().__init__(ClickMaps(radius), with_prev_mask=True)
        maps = self.encoding_channels
        self.encoder = Encoder()
        self.encoder.stem.requires_grad_(False)  # edges and colours are the same here
        self.maps_transform = MapsTransform(maps)
        self.lateral32 = ConvNorm(320, 128, linear=True)
        self.lateral16 = ConvNorm(112 + 2 * maps, 128, linear=True)
        self.attention = nn.Sequential(AttentionBlock(128), AttentionBlock(128))
        self.up8 = UpBlock(128, 40 + 2 * maps, 96)
        self.up4 = UpBlock(96, 24 + 2 * maps, 64)
        self.up2 = UpBlock(64, STEM_CHANNELS, 32, kernel=3)
        self.aux_head = nn.Conv2d(64, 1, 1)
        self.head = nn.Conv2d(32, 2, 1)  # delta and gate
        nn.init.constant_(self.head.bias[1:], -1.0)  # type: ignore[index]

    def encode(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `ClickNetwork`; padded at the bottom and right to multiples of 32."""
        bottom, right = -image.shape[2] % 32, -image.shape[3] % 32
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom), mode="replicate")
        return super().encode(image, points)

    def trunk(self, rgb: Tensor, encoding: Tensor) -> Features:
        """Strides 16 and 32 together; beside them 8, 4 and 2, and the encoding."""
        fused = self.maps_transform(_laid_out_like(encoding, rgb))
        s2, s4, s8, s16, s32 = self.encoder(rgb, fused)
        s4, s8, s16 = _with_maps((s4, s8, s16), encoding)
        x = self.lateral16(s16)
        x = x + _resize(self.lateral32(s32), x.shape[2], x.shape[3])
        return Features(x, (s8, s4, s2, encoding))

    def context(self, features: Features) -> Features:
        """Self-attention."""
        return Features(self.attention(features.main), features.rest)

    def decode(self, features: Features) -> Features:
        """Up to stride 2; beside it stride 4, and the encoding."""
        s8, s4, s2, encoding = features.rest
        x = self.up8(features.main, s8)
        quarter = self.up4(x, s4)
        return Features(self.up2(quarter, s2), (quarter, encoding))

    def classify(self, features: Features, height: int, width: int) -> dict[str, Tensor]:
        """See `ClickNetwork`; delta + gate * mask, without the padding. Auxiliary logits are for
        training only."""
        quarter, encoding = features.rest
        size = encoding.shape[2:]
        delta, gate = self.head(features.main).split(1, dim=1)  # (B, 1, H/2, W/2)
        given = MASK_LOGIT * (2 * encoding[:, :1] - 1)
        logits = _resize(delta, *size) + _resize(gate.sigmoid(), *size) * given
        answer = {"instances": logits[..., :height, :width]}
        if self.training:
            auxiliary = _resize(self.aux_head(quarter), *size)
            answer["instances_aux"] = auxiliary[..., :height, :width]
        return answer

    def load_trunk_state(self, state: dict[str, Tensor]) -> None:
        """Start the encoder from ImageNet weights in the keys of `efficientnet_lite_pytorch`.

        Those weights expect (x - 0.498) / 0.502; the difference to the mean and deviation used
        here is absorbed by the first convolution and its batch norm.

        Raises:
            CheckpointError: a key is missing or has another shape.
        """
        own = self.encoder.state_dict()
        names = {key: _imagenet_key(key) for key in own}
        wrong = [n for k, n in names.items() if n not in state or state[n].shape != own[k].shape]
        if wrong:
            raise CheckpointError(
                f"expected EfficientNet-Lite0 weights; {len(wrong)} of {len(names)} keys are "
                f"missing or of another shape: {', '.join(wrong[:5])}"
            )
        weights = {key: state[name].clone() for key, name in names.items()}
        mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
        std = torch.tensor(IMAGENET_STD)[:, None, None]
        stem = weights["stem.weight"]
        weights["stem.running_mean"] -= (stem * (mean - 0.498) / 0.502).sum((1, 2, 3))
        weights["stem.weight"] = stem * std / 0.502
        self.encoder.load_state_dict(weights)


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def _laid_out_like(x: Tensor, other: Tensor) -> Tensor:
    """In the memory layout of another tensor: what is joined of two layouts loses both, and the
    decoder with it (training in channels_last then takes 1.6 times as long)."""
    channels_last = other.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return x.contiguous(memory_format=layout)


def _with_maps(features: tuple[Tensor, ...], encoding: Tensor) -> list[Tensor]:
    """Append the encoding to features of growing stride: its mean and maximum in every cell."""
    joined = []
    mean = peak = encoding.contiguous()
    for x in features:
        stride = mean.shape[2] // x.shape[2]
        mean, peak = _pool(mean, stride, torch.mean), _pool(peak, stride, torch.amax)
        joined.append(torch.cat([x, _laid_out_like(mean, x), _laid_out_like(peak, x)], dim=1))
    return joined


def _pool(x: Tensor, stride: int, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Cells of stride x stride; torch's own pooling takes nine times as long for a few channels."""
    batch, channels, height, width = x.shape
    rows = reduce(x.view(batch, channels, height // stride, stride, width), 3)
    return reduce(rows.view(*rows.shape[:3], width // stride, stride), 4)


def _imagenet_key(key: str) -> str:
    """``blocks.3.project.gain`` -> ``_blocks.3._bn2.weight``."""
    *layer, leaf = key.split(".")
    convs = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    convolution = leaf == "weight"
    leaf = "weight" if leaf == "gain" else leaf
    if layer == ["stem"]:
        return f"{'_conv_stem' if convolution else '_bn0'}.{leaf}"
    _, block, part = layer
    return f"_blocks.{block}.{(convs if convolution else norms)[part]}.{leaf}"
