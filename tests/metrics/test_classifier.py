"""The classifier of a data set: its accuracy, its determinism, its file and its key."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from damage import CASES, outcomes

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.metrics import classifier
from ddpm_eval.training.tensor_files import write_tensors


@pytest.fixture(scope="module")
def train(digits):
    return digits[0]


@pytest.fixture(scope="module")
def test_set(digits):
    return digits[1]


def synthetic(n: int, channels: int, side: int, split: str, seed: int = 0) -> ImageSet:
    """Images whose class is which half is brighter."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 100, (n, channels, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, :, : side // 2] += np.uint8(100 * label)
        image[:, :, side // 2 :] += np.uint8(100 * (1 - label))
    return ImageSet(
        "halves",
        split,
        np.arange(n),
        labels,
        np.array([], np.int64),
        f"{split}{n}{side}{seed}",
        channels,
        side,
        images,
    )


def test_classifier_reports_the_accuracy_it_has(digits_classifier, train, test_set):
    extractor = dataclasses.replace(digits_classifier, batch_size=77)
    logits = np.concatenate([logits for _, logits in extractor.extract(test_set)])
    assert digits_classifier.test_accuracy == np.mean(logits.argmax(axis=1) == test_set.labels)
    assert digits_classifier.test_accuracy >= 0.97
    assert digits_classifier.n_test == len(test_set) == 360


def test_classifier_is_cached_deterministic_and_leaves_the_global_generator_alone(
    digits_classifier, train, test_set, tmp_path
):
    state = torch.get_rng_state()
    stages = []
    again = classifier.load_or_train_classifier(
        train, test_set, tmp_path, progress=lambda stage, done, total: stages.append(stage)
    )
    assert set(stages) == {"training the classifier"}
    assert again.weights_digest == digits_classifier.weights_digest
    assert again.weights_path.name == digits_classifier.weights_path.name
    stages.clear()
    cached = classifier.load_or_train_classifier(
        train, test_set, tmp_path, progress=lambda stage, done, total: stages.append(stage)
    )
    assert not stages
    assert cached.weights_digest == again.weights_digest
    assert torch.equal(torch.get_rng_state(), state)
    other_data = dataclasses.replace(train, digest="another")
    assert classifier.classifier_path(other_data, test_set, tmp_path, seed=0) != cached.weights_path
    assert classifier.classifier_path(train, test_set, tmp_path, seed=1) != cached.weights_path


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 28), (3, 32)])
def test_classifier_of_any_small_image_learns(channels, side, tmp_path):
    extractor = classifier.load_or_train_classifier(
        synthetic(128, channels, side, "train"), synthetic(64, channels, side, "test", 1), tmp_path
    )
    assert extractor.name == "halves-classifier"
    assert extractor.test_accuracy == 1.0


@pytest.mark.parametrize(
    ("data_set", "name"),
    [
        ("fashion-mnist", "fashion-mnist"),
        ("npz:/home/me/My Images.npz", "my-images"),
        ("folder@64:cats/", "cats"),
    ],
)
def test_classifier_is_named_after_its_data_not_its_place(data_set, name):
    assert classifier.classifier_name(data_set) == f"{name}-classifier"


def test_a_classifier_needs_labels(train, test_set, tmp_path):
    with pytest.raises(ValueError, match="digits has no labels, which a classifier needs"):
        classifier.load_or_train_classifier(dataclasses.replace(train, labels=None), test_set, tmp_path)
    with pytest.raises(ValueError, match="too few to train a classifier on"):
        classifier.load_or_train_classifier(
            dataclasses.replace(train, labels=np.zeros(len(train), np.int64)), test_set, tmp_path
        )
    assert not list(tmp_path.iterdir())


def test_classifier_files_that_are_none_are_refused(digits_classifier, tmp_path):
    whole = digits_classifier.weights_path.read_bytes()
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"truncated\.safetensors is not a readable safetensors file"):
        classifier.load_classifier(truncated)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, foreign)
    with pytest.raises(ValueError, match="holds weights of another network"):
        classifier.load_classifier(foreign)
    old = tmp_path / "old.safetensors"
    metadata = dataclasses.asdict(digits_classifier.module.metadata) | {"recipe_version": 0}
    header = {"metadata": json.dumps(metadata), "kind": classifier.KIND.value}
    safetensors.torch.save_file({"w": torch.zeros(2)}, old, header)
    with pytest.raises(ValueError, match="is a classifier of recipe 0, this"):
        classifier.load_classifier(old)


def weights_and_header(path):
    with safetensors.safe_open(path, framework="pt") as file:
        header = {name: value for name, value in file.metadata().items() if "digest" not in name}
        return {name: file.get_tensor(name) for name in file.keys()}, header


def test_a_classifier_of_an_earlier_version_has_no_digests_and_is_read(digits_classifier, tmp_path):
    weights, header = weights_and_header(digits_classifier.weights_path)
    safetensors.torch.save_file(weights, tmp_path / "old.safetensors", header)
    found = classifier.load_classifier(tmp_path / "old.safetensors")
    assert found.weights_digest == digits_classifier.weights_digest


@pytest.mark.parametrize(
    ("weights", "metadata", "sentence"),
    [
        ({"head.bias": torch.zeros(1)}, {}, "head.bias has shape"),
        (
            {"head.bias": torch.full((10,), float("inf"))},
            {},
            "weight head.bias holds values that are not finite",
        ),
        (
            {"head.bias": torch.zeros(10, dtype=torch.int8)},
            {},
            "weight head.bias holds numbers of type torch.int8",
        ),
        ({"more": torch.zeros(1)}, {}, "weights that this network does not have: more"),
        ({}, {"classes": [1, 2]}, "head.weight has shape"),
        ({}, {"channels": 3}, "has shape"),
        ({}, {"channels": 10**9}, "damaged: its metadata are impossible"),
        ({}, {"side": -1}, "damaged: its metadata are impossible"),
        ({}, {"side": "wide"}, "damaged: its metadata: Input should be a valid integer"),
        ({}, {"classes": None}, "damaged: its metadata: Input should be a valid tuple"),
        ({}, {"test_accuracy": float("nan")}, "damaged: its metadata are impossible"),
        ({}, "[" * 100_000, "damaged: .*nested too deeply"),
        ({}, "{}", "damaged: its metadata: Field required"),
        ({}, "{", "damaged: .*is no JSON"),
    ],
)
def test_weights_and_metadata_that_do_not_fit_are_refused(
    digits_classifier, tmp_path, weights, metadata, sentence
):
    own, header = weights_and_header(digits_classifier.weights_path)
    if isinstance(metadata, dict):
        metadata = json.dumps(json.loads(header["metadata"]) | metadata)
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(own | weights, path, header | {"metadata": metadata})
    with pytest.raises(ValueError, match=rf"foreign.safetensors.*{sentence}") as caught:
        classifier.load_classifier(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_damaged_copies_are_refused_or_equal(digits_classifier, tmp_path):
    own, header = weights_and_header(digits_classifier.weights_path)
    other = {name: value + 1 for name, value in own.items()}
    write_tensors(tmp_path / "other", other, header)
    expected = digits_classifier.module.metadata

    def assert_whole(path):
        found = classifier.load_classifier(path)
        assert found.weights_digest == digits_classifier.weights_digest
        assert found.module.metadata == expected

    content = digits_classifier.weights_path.read_bytes()
    others = (tmp_path / "other").read_bytes()
    counts = outcomes(tmp_path / "damaged.safetensors", content, others, assert_whole)
    assert counts["refused"] > 0.5 * CASES


def test_a_classifiers_key_covers_its_data_its_seed_and_its_whole_recipe(train, test_set, monkeypatch):
    key = classifier.classifier_key(train, test_set)
    assert classifier.classifier_key(train, test_set, seed=0) == key
    keys = {
        key,
        classifier.classifier_key(train, test_set, seed=1),
        classifier.classifier_key(dataclasses.replace(train, digest="another"), test_set),
        classifier.classifier_key(train, dataclasses.replace(test_set, digest="another")),
    }
    recipe = classifier.training_recipe(train)
    changed = {
        "pair_widths": (16, 64),
        "feature_width": 32,
        "steps": recipe.steps + 1,
        "batch_size": 32,
        "max_shift": 2,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "version": recipe.version + 1,
    }
    assert changed.keys() == {field.name for field in dataclasses.fields(recipe)}
    for name, value in changed.items():
        other = dataclasses.replace(recipe, **{name: value})
        monkeypatch.setattr(classifier, "training_recipe", lambda train, other=other: other)
        keys.add(classifier.classifier_key(train, test_set))
    assert len(keys) == 4 + len(changed)


def test_the_recipe_describes_the_network_that_is_trained(train, digits_classifier):
    recipe = classifier.training_recipe(train)
    widths = [
        layer.out_channels
        for layer in digits_classifier.module.network.trunk
        if hasattr(layer, "kernel_size") and hasattr(layer, "out_channels")
    ]
    assert widths == [32, 32, 64, recipe.feature_width]
    assert recipe.pair_widths == (32, 64)
    assert recipe.steps == 20 * (len(train) // recipe.batch_size) == 440
    assert (recipe.batch_size, recipe.max_shift) == (64, 1)


def test_a_changed_recipe_trains_another_classifier(tmp_path, monkeypatch):
    sets = synthetic(128, 1, 8, "train"), synthetic(64, 1, 8, "test", 1)
    first = classifier.load_or_train_classifier(*sets, tmp_path)
    shorter = dataclasses.replace(classifier.training_recipe(sets[0]), steps=20)
    monkeypatch.setattr(classifier, "training_recipe", lambda train: shorter)
    second = classifier.load_or_train_classifier(*sets, tmp_path)
    assert first.weights_path != second.weights_path
    assert first.weights_digest != second.weights_digest
    assert len(list(tmp_path.iterdir())) == 2


def test_the_classifier_of_other_images_is_not_taken(digits, digits_classifier, tmp_path):
    """A file of two data sets exchanged: the name says which it must be, and so does its header."""
    train, test = digits
    other = dataclasses.replace(test, digest="another")
    path = classifier.classifier_path(train, other, tmp_path)
    path.write_bytes(digits_classifier.weights_path.read_bytes())
    with pytest.raises(ValueError, match=r"is the classifier of other images, those of digits \(files exch"):
        classifier.load_or_train_classifier(train, other, tmp_path)
