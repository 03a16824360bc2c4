"""DINOv2 and CLIP: torch-fidelity's numbers with the same weights, their names, and files that are refused.

The networks have the authors' layouts and random weights. DINOv2's code is not torch-fidelity's: a small
network of its interface stands in for the repository that torch's hub would fetch.
"""

import warnings
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ddpm_eval.data.image_set import from_array
from ddpm_eval.metrics.distances import PROTOCOLS
from ddpm_eval.metrics.embeddings import cached_weights, load_embedding
from ddpm_eval.metrics.quality import evaluate_quality
from ddpm_eval.runtime import global_seed

SINGULAR = PROTOCOLS["paper"].model_copy(update={"allow_singular": True})
CLIP, DINOV2 = "clip-vit-b-32", "dinov2-vit-s-14"
HUB = """
import torch
from torch import nn

dependencies = ["torch"]


def dinov2_vits14(pretrained=True):
    network = nn.Sequential(nn.Conv2d(3, 24, 56, 56), nn.Flatten(), nn.Linear(24 * 16, 384))
    if pretrained:
        url = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
        network.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return network
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's folder with a repository in place of DINOv2's, and no network."""
    repository = tmp_path / "hub" / "facebookresearch_dinov2_main"
    repository.mkdir(parents=True)
    (repository / "hubconf.py").write_text(HUB)
    return without_network(tmp_path, monkeypatch)


def without_network(folder, monkeypatch):
    """Let torch's hub lie in a folder, and reach nothing."""

    def unreachable(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(folder))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    return folder / "hub"


def dinov2_state():
    """Weights of the repository's network from a seeded initialisation."""
    with global_seed(0, torch.device("cpu")):
        return nn.Sequential(nn.Conv2d(3, 24, 56, 56), nn.Flatten(), nn.Linear(24 * 16, 384)).state_dict()


def images(seed, n=40, side=8):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side)).astype(np.uint8)


def program(samples, real, **network):
    """What torch-fidelity's own program says of the same images."""
    import torch_fidelity

    class Tensors(torch.utils.data.TensorDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0]

    sets = [Tensors(torch.from_numpy(array)) for array in (samples, real)]
    with warnings.catch_warnings(action="ignore"):  # of its networks' code
        return torch_fidelity.calculate_metrics(
            input1=sets[0],
            input2=sets[1],
            fid=True,
            kid=True,
            prc=True,
            kid_subset_size=len(samples),
            batch_size=32,
            cuda=False,
            cache=False,
            verbose=False,
            **network,
        )


def check_equal(ours, theirs):
    """As in `test_quality`; a singular covariance's root loses half of the digits."""
    assert ours.frechet_distance.value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours.kid.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4, abs=1e-7)
    assert (ours.precision.value, ours.recall.value) == (theirs["precision"], theirs["recall"])


def test_clip_has_torch_fidelitys_numbers_with_the_kernel_of_cmmd(small_clip):
    samples, real = images(0), images(1)
    theirs = program(
        samples,
        real,
        feature_extractor=CLIP,
        feature_extractor_weights_path=str(small_clip),
        kid_kernel="rbf",
        kid_kernel_rbf_sigma=10.0,
    )
    ours = evaluate_quality(samples, from_array(real), load_embedding(CLIP, small_clip), protocol=SINGULAR)
    check_equal(ours, theirs)
    assert ours.kid.low < ours.kid.value < ours.kid.high
    assert (ours.kernel_name, ours.distance_name) == (
        "CMMD-like kernel distance (clip-vit-b-32)",
        "Frechet distance (clip-vit-b-32)",
    )
    assert "kernel distance with a Gaussian kernel of width 10 (as CMMD, but unbiased)" in ours.caption
    assert (
        "no score (there are no classes)" in ours.caption and f"weights {ours.weights_digest}" in ours.caption
    )
    assert not ours.score.known and not ours.mean_confidence.known and len(ours.class_counts) == 0


def test_clip_is_read_from_plain_tensors_too(small_clip, tmp_path):
    expected = load_embedding(CLIP, small_clip)
    assert (expected.width, expected.resize.split(",")[0]) == (24, "32 pixels")
    with warnings.catch_warnings(action="ignore"):  # of TorchScript
        clip_state = dict(torch.jit.load(small_clip).state_dict())
    save_file(clip_state, tmp_path / "clip.safetensors")
    torch.save(clip_state, tmp_path / "clip.pth")
    for name in ("clip.safetensors", "clip.pth"):
        assert load_embedding(CLIP, tmp_path / name).weights_digest == expected.weights_digest


def test_dinov2_has_torch_fidelitys_numbers_from_the_hub_and_from_a_file(hub, tmp_path):
    torch.save(dinov2_state(), tmp_path / "weights.pth")
    path = cached_weights(DINOV2)
    path.parent.mkdir()
    torch.save(dinov2_state(), path)
    samples, real = images(0), images(1)
    theirs = program(samples, real, feature_extractor=DINOV2)
    for weights in (None, tmp_path / "weights.pth"):
        extractor = load_embedding(DINOV2, weights)
        assert (extractor.width, extractor.resize.split(",")[0]) == (384, "224 pixels")
        ours = evaluate_quality(samples, from_array(real), extractor, protocol=SINGULAR)
        check_equal(ours, theirs)
    assert ours.distance_name == "FD-DINOv2 (dinov2-vit-s-14)"
    assert ours.kernel_name == "kernel distance (dinov2-vit-s-14)" and "CMMD" not in ours.caption


def test_without_weights_and_network_a_sentence_says_where_to_put_them(tmp_path, monkeypatch):
    folder = without_network(tmp_path, monkeypatch)
    place = f"{folder / 'checkpoints' / 'dinov2_vits14_pretrain.pth'}"
    with pytest.raises(
        ValueError, match=r"DINOv2 cannot be downloaded .*unpack github.com/facebookresearch"
    ) as e:
        load_embedding(DINOV2)
    assert place in str(e.value) and "--features-weights FILE" in str(e.value) and "\n" not in str(e.value)
    assert (
        f"unpack github.com/facebookresearch/dinov2 as {folder / 'facebookresearch_dinov2_main'} and"
        in str(e.value)
    )
    with pytest.raises(
        ValueError, match=r"CLIP cannot be downloaded .*put https://openaipublic.*ViT-B-32.pt"
    ) as e:
        load_embedding(CLIP)
    assert str(cached_weights(CLIP)) in str(e.value) and "\n" not in str(e.value)


def test_files_of_other_networks_are_refused(hub, tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds other weights than CLIP's"):
        load_embedding(CLIP, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"other\.pth holds other weights than dinov2-vit-s-14's: Missing key"
    ):
        load_embedding(DINOV2, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ValueError, match=r"holds other things than tensors .* or is damaged"):
        load_embedding(CLIP, tmp_path / "text.pth")
    with pytest.raises(ValueError, match="there is no weights file"):
        load_embedding(DINOV2, tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="there is no network 'dinov3'"):
        load_embedding("dinov3")
