"""improved- and guided-diffusion's own bound and samples against those of the adapted model, from one noise.

The packages are guided-diffusion-sdk and improved-diffusion-for-SMLM, in which others publish the two
repositories. Their tables are used in single precision.
"""

import numpy as np
import pytest
import torch
from same_noise import StepNoise, other_package, start_noise
from torch import nn

from ddpm_eval.adapters.guided_diffusion import from_guided_diffusion
from ddpm_eval.api.bounds import evaluate_bound
from ddpm_eval.api.samples import sample
from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_model_range, to_pixels
from ddpm_eval.randomness import Stream

GUIDED = "guided_diffusion"
IMPROVED = "improved_diffusion_for_SMLM.improved_diffusion"
INSTALL = {GUIDED: "guided-diffusion-sdk", IMPROVED: "--no-deps improved-diffusion-for-SMLM"}
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
LABELS = np.array([2, 0, 1])
SHAPE = (3, 8, 8)


@pytest.fixture(scope="module", params=[GUIDED, IMPROVED])
def package(request):
    """The package's modules by name."""
    if request.param == IMPROVED:
        pytest.importorskip(IMPROVED.split(".")[0], reason=f"pip install {INSTALL[IMPROVED]}")
    names = ("gaussian_diffusion", "respace", "unet")
    return {name: other_package(f"{request.param}.{name}", INSTALL[request.param]) for name in names}


def make_diffusion(
    package, *, schedule="linear", steps=20, kept="", mean="EPSILON", variance="FIXED_LARGE", rescale=False
):
    diffusion, respace = package["gaussian_diffusion"], package["respace"]
    # 20 steps are too few for their linear schedule, whose betas are scaled by 1000 / steps
    betas = (
        np.linspace(1e-3, 0.5, steps)
        if schedule == "linear"
        else diffusion.get_named_beta_schedule(schedule, steps)
    )
    return respace.SpacedDiffusion(
        use_timesteps=respace.space_timesteps(steps, kept or [steps]),
        betas=betas,
        model_mean_type=diffusion.ModelMeanType[mean],
        model_var_type=diffusion.ModelVarType[variance],
        loss_type=diffusion.LossType.MSE,
        rescale_timesteps=rescale,
    )


@pytest.fixture(scope="module")
def networks(package):
    """Networks of one and two heads, without and with classes, with random weights."""
    made = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for heads in (1, 2):
            for classes in (None, 3):
                network = package["unet"].UNetModel(
                    **(
                        {"image_size": 8}
                        if "image_size" in package["unet"].UNetModel.__init__.__code__.co_varnames
                        else {}
                    ),
                    in_channels=3,
                    model_channels=32,
                    out_channels=3 * heads,
                    num_res_blocks=1,
                    attention_resolutions=(),
                    channel_mult=(1, 2),
                    num_classes=classes,
                )
                for parameter in network.parameters():  # their last layers begin as zeros
                    nn.init.normal_(parameter, std=0.05)
                made[heads, classes] = network.eval()
    return made


CASES = [
    {},
    {"schedule": "cosine", "variance": "FIXED_SMALL"},
    {"schedule": "cosine", "steps": 40, "kept": "7"},
    {"schedule": "cosine", "steps": 40, "kept": "5,2", "variance": "LEARNED_RANGE"},
    {"steps": 40, "kept": "ddim10", "variance": "LEARNED_RANGE", "rescale": True},
    {"variance": "LEARNED"},
    {"mean": "START_X", "rescale": True},
    {"mean": "PREVIOUS_X"},
]


def chosen_network(networks, case, classes=None):
    return networks[2 if case.get("variance", "").startswith("LEARNED") else 1, classes]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("classes", [None, 3])
def test_the_bound_is_their_bits_per_dim_loop(package, networks, case, classes, monkeypatch):
    network, diffusion = chosen_network(networks, case, classes), make_diffusion(package, **case)
    model = from_guided_diffusion(network, diffusion)
    labels = None if classes is None else LABELS
    found = evaluate_bound(model, from_array(PIXELS, labels=labels), estimator="full", progress=False)

    times = reversed(diffusion.timestep_map)
    monkeypatch.setattr(torch, "randn_like", StepNoise(0, times, Stream.BOUND))
    x_0 = to_model_range(torch.from_numpy(PIXELS))
    y = {} if classes is None else {"y": torch.from_numpy(LABELS)}
    with torch.no_grad():
        theirs = diffusion.calc_bpd_loop(network, x_0, clip_denoised=True, model_kwargs=y)
    bits = found.terms.bits_per_nat
    vb, mse = (theirs[name].flip(1).numpy() for name in ("vb", "xstart_mse"))  # they count down
    # their tables and arithmetic are in single precision
    np.testing.assert_allclose(found.terms.terms[:, 1:] * bits, vb[:, 1:], rtol=2e-4, atol=2e-5)
    # the untrained estimates of x_0 are far from the images: their probabilities are differences of CDFs near
    # 1, which single precision rounds to 6e-8 and then floors at 1e-12
    far = case.get("mean", "EPSILON") != "EPSILON"
    np.testing.assert_allclose(found.terms.terms[:, 0] * bits, vb[:, 0], rtol=2e-2 if far else 2e-4)
    np.testing.assert_allclose(found.terms.prior * bits, theirs["prior_bpd"].numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.terms.x_0_squared_error, mse, rtol=1e-4)
    if not far:
        total = found.terms.values()["total"]
        np.testing.assert_allclose(total, theirs["total_bpd"].numpy(), rtol=1e-4)


@pytest.mark.parametrize("case", [c for c in CASES if c.get("mean") != "PREVIOUS_X"], ids=str)
@pytest.mark.parametrize("classes", [None, 3])
def test_samples_are_theirs(package, networks, case, classes, monkeypatch):
    network, diffusion = chosen_network(networks, case, classes), make_diffusion(package, **case)
    model = from_guided_diffusion(network, diffusion, shape=SHAPE)
    y = None if classes is None else LABELS
    found = sample(model, 3, labels=y, seed=4, progress=False)

    monkeypatch.setattr(torch, "randn_like", StepNoise(4, reversed(diffusion.timestep_map)))
    theirs = diffusion.p_sample_loop(
        network,
        (3, *SHAPE),
        noise=start_noise(4, 3, SHAPE),
        clip_denoised=True,
        model_kwargs={} if y is None else {"y": torch.from_numpy(y)},
        device="cpu",
    )
    difference = found.images.astype(int) - to_pixels(theirs).numpy().astype(int)
    # pixels near the border of two levels are rounded to either
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 2e-3


def test_deterministic_samples_of_a_respaced_chain_are_theirs(package, networks):
    case = {"schedule": "cosine", "steps": 40, "kept": "ddim10"}
    network, diffusion = networks[1, None], make_diffusion(package, **case)
    found = sample(
        from_guided_diffusion(network, diffusion, shape=SHAPE), 3, method="ddim", seed=4, progress=False
    )
    theirs = diffusion.ddim_sample_loop(
        network, (3, *SHAPE), noise=start_noise(4, 3, SHAPE), clip_denoised=True, eta=0.0, device="cpu"
    )
    difference = found.images.astype(int) - to_pixels(theirs).numpy().astype(int)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 2e-3


def test_the_shape_is_the_networks_where_it_says_one(package, networks):
    network = networks[1, None]
    model = from_guided_diffusion(network, make_diffusion(package))
    assert model.shape == (SHAPE if hasattr(network, "image_size") else None)
