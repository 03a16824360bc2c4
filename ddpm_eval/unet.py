"""The denoising network: the U-Net of Ho, Jain, Abbeel (2020), appendix B, at any size.

A PixelCNN++-like U-Net of wide residual blocks with GroupNorm, self-attention at chosen sides and a sinusoidal embedding
of the time step added in every residual block. The modules carry the names of the published PyTorch conversion of the
authors' weights (pesser/pytorch_diffusion), so that such a checkpoint is this network's state dict.

Conventions: images are ``[batch, channels, side, side]`` in [-1, 1]; ``timestep`` is the paper's t minus one, 0..T-1, as
the authors feed it to the network; the output has ``out_channels`` channels (twice the image's for a learned variance).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_eval.spec import NetworkSpec

NORM_EPSILON = 1e-6
MAX_PERIOD = 10_000.0


def timestep_embedding(timestep: Tensor, width: int) -> Tensor:
    """Embed time steps as sinusoids, ``[sin, cos]`` concatenated, frequencies spaced over ``width / 2 - 1``.

    Args:
        timestep: shape ``[batch]``, 0-based.
        width: number of channels, even and at least 4.

    Returns:
        Float32, shape ``[batch, width]``.

    Source: Vaswani et al. (2017) as in the authors' code (which divides by ``half - 1``, not ``half``).
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=timestep.device) * (-math.log(MAX_PERIOD) / (half - 1)))
    angle = timestep.float()[:, None] * frequency[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with pre-activation GroupNorm-SiLU, the time embedding added between them."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=NORM_EPSILON)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temb_proj = nn.Linear(embedding, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=NORM_EPSILON)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.dropout = dropout

    def forward(self, x: Tensor, activated_embedding: Tensor) -> Tensor:
        """Map ``[batch, in, side, side]`` to ``[batch, out, side, side]``."""
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = h + self.temb_proj(activated_embedding)[:, :, None, None]
        h = F.silu(self.norm2(h), inplace=True)
        if self.training and self.dropout > 0:
            h = F.dropout(h, self.dropout)
        shortcut = x if self.nin_shortcut is None else self.nin_shortcut(x)
        return shortcut + self.conv2(h)


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
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(h)


class Downsample(nn.Module):
    """Halve the side by a stride-2 convolution, padded on the right and bottom only, as TensorFlow's SAME does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, channels, side, side]`` to ``[batch, channels, side / 2, side / 2]``."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the side by nearest-neighbour interpolation and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, channels, side, side]`` to ``[batch, channels, 2 side, 2 side]``."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention where the level has it."""

    def __init__(self, blocks: list[ResidualBlock], attention: list[AttentionBlock], resample: nn.Module | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(attention)
        if isinstance(resample, Downsample):
            self.downsample = resample
        elif isinstance(resample, Upsample):
            self.upsample = resample

    def step(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply residual block ``index`` and its attention."""
        x = self.block[index](x, embedding)
        return self.attn[index](x) if len(self.attn) else x


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, embedding: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, embedding, groups, dropout)
        self.attn_1 = AttentionBlock(channels, groups)
        self.block_2 = ResidualBlock(channels, channels, embedding, groups, dropout)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``[batch, channels, side, side]`` to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x, embedding)), embedding)


class TimeEmbedding(nn.Module):
    """Two dense layers on top of the sinusoidal embedding."""

    def __init__(self, base_channels: int, width: int) -> None:
        super().__init__()
        self.base_channels = base_channels
        self.dense = nn.ModuleList([nn.Linear(base_channels, width), nn.Linear(width, width)])

    def forward(self, timestep: Tensor) -> Tensor:
        """Map ``[batch]`` to ``[batch, width]``."""
        h = timestep_embedding(timestep, self.base_channels).to(self.dense[0].weight.dtype)
        return self.dense[1](F.silu(self.dense[0](h)))


class UNet(nn.Module):
    """The network of the paper; see the module's header for conventions.

    Args:
        network: widths, blocks, attention.
        channels: of the images.
        side: of the images in pixels, divisible by ``2 ** (len(multipliers) - 1)``.
        out_channels: ``channels``, or ``2 * channels`` with a learned variance.
        seed: of the initialisation, which leaves the global generator untouched.

    Raises:
        ValueError: if ``side`` cannot be halved as often as the multipliers ask.
    """

    def __init__(self, network: NetworkSpec, channels: int, side: int, out_channels: int, seed: int = 0) -> None:
        super().__init__()
        network.check_side(side)
        self.network, self.channels, self.side, self.out_channels = network, channels, side, out_channels
        base, groups, dropout = network.base_channels, network.norm_groups, network.dropout
        embedding = 4 * base
        self.temb = TimeEmbedding(base, embedding)
        self.conv_in = nn.Conv2d(channels, base, 3, padding=1)

        widths = [base * m for m in network.multipliers]
        last = len(widths) - 1
        skips, width = [base], base
        self.down = nn.ModuleList()
        for level, out in enumerate(widths):
            blocks, attention = [], []
            for _ in range(network.blocks):
                blocks.append(ResidualBlock(width, out, embedding, groups, dropout))
                width = out
                skips.append(width)
                if side >> level in network.attention_sides:
                    attention.append(AttentionBlock(width, groups))
            self.down.append(Level(blocks, attention, Downsample(width) if level < last else None))
            if level < last:
                skips.append(width)

        self.mid = Middle(width, embedding, groups, dropout)

        up = []
        for level, out in reversed(list(enumerate(widths))):
            blocks, attention = [], []
            for _ in range(network.blocks + 1):
                blocks.append(ResidualBlock(width + skips.pop(), out, embedding, groups, dropout))
                width = out
                if side >> level in network.attention_sides:
                    attention.append(AttentionBlock(width, groups))
            up.append(Level(blocks, attention, Upsample(width) if level > 0 else None))
        self.up = nn.ModuleList(reversed(up))  # named by level, as the published weights are

        self.norm_out = nn.GroupNorm(groups, width, eps=NORM_EPSILON)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        self.initialise(seed)

    def initialise(self, seed: int) -> None:
        """Set all weights as the authors do: uniform, variance 1 / fan_avg; the last layer of every branch zero."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and name.endswith(("conv2", "proj_out", "conv_out")):
                nn.init.zeros_(module.weight)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Predict from a noisy image.

        Args:
            x: noisy images, shape ``[batch, channels, side, side]``.
            timestep: 0-based time steps, shape ``[batch]``, or ``[1]`` when all images share one.

        Returns:
            Shape ``[batch, out_channels, side, side]``.
        """
        embedding = F.silu(self.temb(timestep))
        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            for index in range(len(level.block)):
                h = level.step(index, h, embedding)
                skips.append(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
                skips.append(h)
        h = self.mid(h, embedding)
        for level in reversed(self.up):
            for index in range(len(level.block)):
                h = level.step(index, torch.cat([h, skips.pop()], dim=1), embedding)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h), inplace=True))


def parameter_count(network: NetworkSpec, channels: int, side: int, out_channels: int) -> int:
    """Count the parameters without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(network, channels, side, out_channels).parameters())
