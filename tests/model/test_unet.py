"""The network against diffusers' UNet2DModel, the published parameter counts, and identities of its parts.

All weights are perturbed, since the zero-initialised last layers would make any two networks agree.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from other_projects import SHAPES, diffusers, inputs, network, perturbed, run_spec
from torch import Tensor, nn

from ddpm_eval.interchange.diffusers_format import network_config, weights_for_diffusers
from ddpm_eval.model.unet import (
    AttentionBlock,
    Downsample,
    ResidualBlock,
    UNet,
    Upsample,
    parameter_count,
    timestep_embedding,
)
from ddpm_eval.spec import NetworkSpec

PAPER = NetworkSpec(base_channels=128, multipliers=(1, 2, 2, 2))
DIGITS = SHAPES["digits"][2]
PAPER_256 = NetworkSpec(base_channels=128, multipliers=(1, 1, 2, 2, 4, 4))


@pytest.mark.parametrize(
    ("spec", "side", "out_channels", "published"),
    [(PAPER, 32, 3, 35_746_307), (PAPER, 32, 6, 35_749_766), (PAPER_256, 256, 3, 113_673_219)],
)
def test_parameter_counts_are_the_published_ones(
    spec: NetworkSpec, side: int, out_channels: int, published: int
) -> None:
    assert parameter_count(spec, 3, side, out_channels) == published


def ours_and_theirs(shape: str) -> tuple[UNet, nn.Module, Tensor, Tensor]:
    spec = run_spec(shape)
    ours, theirs = network(spec), diffusers.UNet2DModel.from_config(network_config(spec))
    theirs.load_state_dict(weights_for_diffusers(ours.state_dict()))
    return ours, theirs, *inputs(spec)


@pytest.mark.parametrize("shape", SHAPES)
def test_output_agrees_with_diffusers(shape: str) -> None:
    ours, theirs, x, t = ours_and_theirs(shape)
    with torch.inference_mode():
        # outputs are of order 1 and pass some 50 layers, each with float32 roundings of order 1e-7
        torch.testing.assert_close(ours.eval()(x, t), theirs.eval()(x, t).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_agree_with_diffusers(shape: str) -> None:
    ours, theirs, x, t = ours_and_theirs(shape)
    ours.double()(x.double(), t).square().mean().backward()
    theirs.double()(x.double(), t).sample.square().mean().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    found = weights_for_diffusers({name: p.grad for name, p in ours.named_parameters()})
    for name, gradient in found.items():
        # the frequencies of the time embedding are float32 in both and may differ in their last bit: 6e-8 of
        # an angle of up to 1000; the keys' bias has no effect, so that its gradient is rounding only
        size = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], atol=2e-5 * size + 1e-15, rtol=0)


def test_evaluation_in_place_agrees_with_the_differentiable_pass() -> None:
    spec = run_spec("cifar10")
    ours, (x, t) = network(spec), inputs(spec)
    with torch.inference_mode():
        fast = ours(x, t)
    torch.testing.assert_close(fast, ours(x, t).detach(), atol=0, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_whole_network_is_one_graph_for_the_compiler(training: bool) -> None:
    spec = run_spec("cifar10")
    ours, (x, t) = network(spec).train(training), inputs(spec)
    compiled = torch.compile(ours, backend="eager", fullgraph=True)  # a graph break raises
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(compiled(x, t), ours(x, t), atol=1e-6, rtol=1e-5)


def test_input_is_left_as_it_was() -> None:
    spec = run_spec("digits")
    ours, (x, t) = network(spec), inputs(spec)
    before = x.clone()
    with torch.inference_mode():
        ours(x, t)
    assert torch.equal(x, before)


def test_memory_layout_does_not_matter() -> None:
    spec = run_spec("cifar10")
    ours, (x, t) = network(spec).eval(), inputs(spec)
    with torch.inference_mode():
        plain = ours(x, t)
        channels_last = ours.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(plain, channels_last, atol=1e-5, rtol=1e-5)  # other kernels, same sums


def test_an_image_does_not_depend_on_its_batch_and_a_shared_time_broadcasts() -> None:
    spec = run_spec("cifar10")
    ours, (x, _) = network(spec).double().eval(), inputs(spec, batch=3)
    x, t = x.double(), torch.tensor([7])
    with torch.inference_mode():
        together = ours(x, t.expand(3))
        torch.testing.assert_close(ours(x, t), together, atol=1e-12, rtol=0)
        for k in range(3):
            torch.testing.assert_close(ours(x[k : k + 1], t), together[k : k + 1], atol=1e-12, rtol=0)


def test_time_changes_the_output() -> None:
    spec = run_spec("digits")
    ours, (x, _) = network(spec), inputs(spec)
    early, late = (ours(x, torch.tensor([t])) for t in (0, 999))
    assert (early - late).abs().max() > 0.01


def test_every_parameter_receives_a_gradient() -> None:
    spec = run_spec("cifar10")
    ours, (x, t) = network(spec), inputs(spec)
    ours(x, t).square().mean().backward()
    assert [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_a_fresh_network_predicts_zero_and_every_block_is_its_shortcut() -> None:
    spec = run_spec("cifar10")
    fresh, (x, t) = UNet(spec.network, 3, 32, 3), inputs(spec)
    assert fresh(x, t).abs().max() == 0
    features = torch.randn(2, 16, 32, 32)
    assert torch.equal(fresh.down[0].block[1](features, torch.randn(2, 16)), features)


def test_initial_weights_have_the_authors_variance() -> None:
    fresh = UNet(PAPER, 3, 32, 3)
    weight = fresh.down[2].block[0].conv1.weight
    # uniform with variance 1 / fan_avg = 2 / (9 (256 + 256)); the sample variance of n uniforms has the
    # relative error sqrt(0.8 / n)
    expected = 2 / (9 * 512)
    assert weight.var().item() == pytest.approx(expected, rel=5 * math.sqrt(0.8 / weight.numel()))
    assert weight.abs().max().item() <= math.sqrt(3 * expected)


def test_initialisation_is_a_function_of_the_seed_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    a, b, c = (UNet(DIGITS, 1, 8, 1, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["conv_in.weight"], c["conv_in.weight"])


def test_dropout_acts_in_training_only() -> None:
    spec = NetworkSpec(**{**DIGITS.model_dump(), "dropout": 0.5})
    ours = perturbed(UNet(spec, 1, 8, 1))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([5])
    assert not torch.equal(ours.train()(x, t), ours(x, t))
    assert torch.equal(ours.eval()(x, t), ours(x, t))


def test_timestep_embedding_by_hand() -> None:
    # width 6: three frequencies 10000^0, 10000^(-1/2), 10000^(-1)
    frequency = [1.0, 1e-2, 1e-4]
    expected = [[f(7 * w) for f in (math.sin, math.cos) for w in frequency]]
    torch.testing.assert_close(
        timestep_embedding(torch.tensor([7]), 6), torch.tensor(expected), atol=1e-6, rtol=0
    )


def test_attention_commutes_with_a_permutation_of_positions() -> None:
    block = perturbed(AttentionBlock(8, 2), scale=0.5).double()
    x, order = torch.randn(2, 8, 4, 4, dtype=torch.float64), torch.randperm(16)

    def permute(image: Tensor) -> Tensor:
        return image.flatten(2)[:, :, order].reshape(image.shape)

    torch.testing.assert_close(block(permute(x)), permute(block(x)), atol=1e-12, rtol=0)


def test_attention_written_out() -> None:
    block = perturbed(AttentionBlock(8, 2), scale=0.5).double()
    x = torch.randn(1, 8, 3, 3, dtype=torch.float64)
    # [channel, position]
    q, k, v = (conv(block.norm(x)).flatten(2)[0] for conv in (block.q, block.k, block.v))
    weights = torch.softmax(q.T @ k / math.sqrt(8), dim=1)
    expected = x + block.proj_out((v @ weights.T).reshape(1, 8, 3, 3))
    torch.testing.assert_close(block(x), expected, atol=1e-12, rtol=0)


def test_upsampling_is_interpolation_and_convolution() -> None:
    layer = perturbed(Upsample(5)).double()
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    expected = layer.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


def test_downsampling_pads_right_and_bottom_only() -> None:
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 0, 0] = 1  # the kernel's first weight, for the window's upper left pixel
        layer.conv.bias.zero_()
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(layer(x), x[:, :, ::2, ::2])


def test_residual_block_adds_the_shift_between_its_convolutions() -> None:
    block = perturbed(ResidualBlock(4, 6, 8, 2, 0.0)).double()
    x, shift = torch.randn(2, 4, 5, 5, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    h = block.conv1(F.silu(block.norm1(x))) + shift[..., None, None]
    expected = block.nin_shortcut(x) + block.conv2(F.silu(block.norm2(h)))
    torch.testing.assert_close(block(x, shift), expected, atol=1e-12, rtol=0)


def test_each_block_is_shifted_by_its_own_projection_of_the_time() -> None:
    spec = run_spec("cifar10")
    net, seen = network(spec).double(), []
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    for block in blocks:
        block.register_forward_hook(lambda block, inputs, _: seen.append((block, inputs[1])))
    x, t = inputs(spec)
    net(x.double(), t)
    assert {id(block) for block, _ in seen} == {id(block) for block in blocks}
    for block, shift in seen:
        torch.testing.assert_close(shift, block.temb_proj(F.silu(net.temb(t))), atol=1e-12, rtol=0)


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"30 pixels wide.*divisible by 8"):
        UNet(PAPER, 3, 30, 3)
