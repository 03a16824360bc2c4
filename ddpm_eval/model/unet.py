"""The denoising network, which is the U-Net of Ho, Jain, Abbeel (2020), appendix B, at any size.

It is a PixelCNN++-like U-Net of wide residual blocks with GroupNorm and with self-attention at chosen sides;
a sinusoidal embedding of the time step is added in every residual block. The modules have the names of the
published PyTorch conversion of the authors' weights (pesser/pytorch_diffusion), so that such a checkpoint is
this network's state dict.

Conventions: images are ``[batch, channels, side, side]`` in [-1, 1]; ``timestep`` is the paper's t minus one,
0..T-1, as the authors feed it to the network; the output has ``out_channels`` channels, twice as many as the
image for a learned variance.
"""

import math
from collections.abc import Iterable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_eval.spec import NetworkSpec

NORM_EPSILON = 1e-6
MAX_PERIOD = 10_000.0

# Row k marks the rows of a 3x3 kernel that meet when it slides over an image of doubled rows, see `Upsample`.
_DOUBLED = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
_DOUBLED_KERNEL = torch.kron(_DOUBLED, _DOUBLED)  # the same for rows and columns, [16, 9]


def timestep_embedding(timestep: Tensor, width: int) -> Tensor:
    """Return the sinusoidal embedding of time steps, sines first and cosines behind them.

    Args:
        timestep: 0-based time steps, shape ``[batch]``.
        width: the number of channels, even and at least 4.

    Returns:
        The embedding, float32 of shape ``[batch, width]``.

    Source: Vaswani et al. (2017) as in the authors' code, which divides by ``width / 2 - 1`` instead of
    ``width / 2``.
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=timestep.device) * (-math.log(MAX_PERIOD) / (half - 1)))
    angle = timestep.float()[:, None] * frequency[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def activate(x: Tensor) -> Tensor:
    """Return SiLU of ``x``, which is overwritten where no gradient is needed."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after GroupNorm and SiLU, with the time embedding added between them."""

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=NORM_EPSILON)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temb_proj = nn.Linear(embedding, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=NORM_EPSILON)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.dropout = dropout

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        """Map ``[batch, in, side, side]`` to ``[batch, out, side, side]``.

        ``shift`` is ``temb_proj`` of the activated time embedding, of shape ``[batch, out]`` or ``[1, out]``,
        see `UNet.shifts`.
        """
        h = self.conv1(activate(self.norm1(x)))
        h += shift[:, :, None, None]
        h = activate(self.norm2(h))
        if self.training and self.dropout > 0:
            h = F.dropout(h, self.dropout)
        h = self.conv2(h)
        h += x if self.nin_shortcut is None else self.nin_shortcut(x)
        return h


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions, with a residual connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=NORM_EPSILON)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, channels, side, side]`` to the same shape."""
        batch, channels, height, width = x.shape
        # positions as tokens (free of copies in channels_last), the three 1x1 convolutions as one matrix
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(batch, 1, height * width, channels)
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight]).flatten(1)
        bias = torch.cat([cast(Tensor, conv.bias) for conv in (self.q, self.k, self.v)])
        q, k, v = F.linear(tokens, weight, bias).chunk(3, dim=-1)
        h = F.linear(
            F.scaled_dot_product_attention(q, k, v), self.proj_out.weight.flatten(1), self.proj_out.bias
        )
        return x + h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """A convolution of stride 2, which halves the side.

    The image is padded on the right and at the bottom only, as TensorFlow does with SAME.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, channels, side, side]`` to ``[batch, channels, side / 2, side / 2]``."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour interpolation and a 3x3 convolution, which double the side.

    On a CPU the two are computed as one transposed convolution. It has 4 instead of 9 products per output,
    since products that meet the same pixel twice are spared. On a GPU this is not done, because cuDNN's
    transposed convolutions need not be deterministic.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, channels, side, side]`` to ``[batch, channels, 2 side, 2 side]``."""
        if x.device.type != "cpu":
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return F.conv_transpose2d(x, self.doubled_kernel(), self.conv.bias, stride=2, padding=1)

    def doubled_kernel(self) -> Tensor:
        """Return the 4x4 kernel of the equivalent transposed convolution, ``[in, out, 4, 4]``."""
        weight = self.conv.weight
        taps = weight.permute(1, 2, 3, 0).flatten(1, 2)  # [in, 9, out]
        return (_DOUBLED_KERNEL.to(weight.dtype) @ taps).unflatten(1, (4, 4)).permute(0, 3, 1, 2)


Steps = Iterable[tuple[ResidualBlock, AttentionBlock | None]]


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention where the level has it."""

    def __init__(
        self, blocks: list[ResidualBlock], attention: list[AttentionBlock], resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(attention)
        self.downsample = resample if isinstance(resample, Downsample) else None
        self.upsample = resample if isinstance(resample, Upsample) else None

    def steps(self) -> Steps:
        """Return the residual blocks, each with the attention that follows it."""
        attention: list[nn.Module | None] = [*self.attn] or [None] * len(self.block)
        return cast(Steps, zip(self.block, attention, strict=True))


class Middle(nn.Module):
    """A residual block, attention, and another residual block, at the lowest resolution."""

    def __init__(self, channels: int, embedding: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, embedding, groups, dropout)
        self.attn_1 = AttentionBlock(channels, groups)
        self.block_2 = ResidualBlock(channels, channels, embedding, groups, dropout)

    def steps(self) -> Steps:
        """Return the residual blocks, each with the attention that follows it."""
        return (self.block_1, self.attn_1), (self.block_2, None)


class TimeEmbedding(nn.Module):
    """Two dense layers on top of the sinusoidal embedding."""

    def __init__(self, base_channels: int, width: int) -> None:
        super().__init__()
        self.base_channels = base_channels
        self.dense = nn.ModuleList([nn.Linear(base_channels, width), nn.Linear(width, width)])

    def forward(self, timestep: Tensor) -> Tensor:
        """Map ``[batch]`` to ``[batch, width]``."""
        first, second = cast(Iterable[nn.Linear], self.dense)
        return second(F.silu(first(timestep_embedding(timestep, self.base_channels).to(first.weight.dtype))))


class UNet(nn.Module):
    """The network of the paper, with the conventions in the module's header.

    Args:
        network: its widths, blocks and attention.
        channels: the number of channels of the images.
        side: the side of the images in pixels, divisible by ``2 ** (len(multipliers) - 1)``.
        out_channels: ``channels``, or ``2 * channels`` with a learned variance.
        seed: the seed of the initial weights. The global generator is left as it was.

    Raises:
        ValueError: if ``side`` cannot be halved as often as the multipliers require.
    """

    def __init__(
        self, network: NetworkSpec, channels: int, side: int, out_channels: int, seed: int = 0
    ) -> None:
        super().__init__()
        network.check_side(side)
        self.network = network
        self.channels = channels
        self.side = side
        self.out_channels = out_channels
        # the layers draw initial values from the global generator, which `initialise` overwrites
        with torch.random.fork_rng(devices=[]):
            self._build()
        self.initialise(seed)

    def _build(self) -> None:
        network = self.network
        base = network.base_channels
        widths = [base * m for m in network.multipliers]
        last = len(widths) - 1
        self.temb = TimeEmbedding(base, 4 * base)
        self.conv_in = nn.Conv2d(self.channels, base, 3, padding=1)

        self.down = nn.ModuleList()
        skips = [base]
        width = base
        for level, out in enumerate(widths):
            inputs = [width] + [out] * (network.blocks - 1)
            self.down.append(self._level(level, inputs, out, Downsample(out) if level < last else None))
            skips += [out] * (network.blocks + (level < last))
            width = out

        self.mid = Middle(width, 4 * base, network.norm_groups, network.dropout)

        up = []
        for level, out in reversed(list(enumerate(widths))):
            inputs = [before + skips.pop() for before in [width] + [out] * network.blocks]
            up.append(self._level(level, inputs, out, Upsample(out) if level > 0 else None))
            width = out
        self.up = nn.ModuleList(reversed(up))  # named by level, as the published weights are

        self.norm_out = nn.GroupNorm(network.norm_groups, width, eps=NORM_EPSILON)
        self.conv_out = nn.Conv2d(width, self.out_channels, 3, padding=1)

    def _level(self, level: int, inputs: list[int], out: int, resample: nn.Module | None) -> Level:
        network = self.network
        embedding = 4 * network.base_channels
        groups = network.norm_groups
        blocks = [ResidualBlock(width, out, embedding, groups, network.dropout) for width in inputs]
        attends = self.side >> level in network.attention_sides
        return Level(blocks, [AttentionBlock(out, groups) for _ in inputs] if attends else [], resample)

    def initialise(self, seed: int) -> None:
        """Set all weights as the authors do.

        They are uniform with variance 1 / fan_avg, but zero in the last layer of every branch.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(cast(Tensor, module.bias))
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and name.endswith(("conv2", "proj_out", "conv_out")):
                nn.init.zeros_(module.weight)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Return the prediction from noisy images.

        Args:
            x: noisy images, shape ``[batch, channels, side, side]``.
            timestep: 0-based time steps, shape ``[batch]``, or ``[1]`` when all images share one.

        Returns:
            The prediction, shape ``[batch, out_channels, side, side]``.
        """
        down, up = self._levels()
        shifts = self.shifts(timestep)
        h = self.conv_in(x)
        skips = [h]
        for level in down:
            for block, attention in level.steps():
                h = block(h, next(shifts))
                h = h if attention is None else attention(h)
                skips.append(h)
            if level.downsample is not None:
                h = level.downsample(h)
                skips.append(h)
        for block, attention in self.mid.steps():
            h = block(h, next(shifts))
            h = h if attention is None else attention(h)
        for level in up:
            for block, attention in level.steps():
                h = block(torch.cat([h, skips.pop()], dim=1), next(shifts))
                h = h if attention is None else attention(h)
            h = h if level.upsample is None else level.upsample(h)
        return self.conv_out(activate(self.norm_out(h)))

    def shifts(self, timestep: Tensor) -> Iterator[Tensor]:
        """Return the shift that the time adds in each residual block, in the blocks' order of use.

        All shifts come from one matrix product.
        """
        down, up = self._levels()
        parts: list[Level | Middle] = [*down, self.mid, *up]
        projections = [block.temb_proj for part in parts for block, _ in part.steps()]
        weight = torch.cat([projection.weight for projection in projections])
        bias = torch.cat([projection.bias for projection in projections])
        embedding = F.silu(self.temb(timestep))
        return iter(F.linear(embedding, weight, bias).split([p.out_features for p in projections], dim=1))

    def _levels(self) -> tuple[list[Level], list[Level]]:
        """Return the levels on the way down and on the way up, in their order of use."""
        return cast(list[Level], list(self.down)), cast(list[Level], list(reversed(self.up)))


def parameter_count(network: NetworkSpec, channels: int, side: int, out_channels: int) -> int:
    """Return the number of parameters, which are not allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(network, channels, side, out_channels).parameters())
