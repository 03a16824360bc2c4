"""The quality of any images against a data set: distances, score, precision and recall, with intervals.

    python examples/sample_quality.py

With labels the data set's own classifier makes the features, and nothing is called FID. With
``features="inception"`` Inception's weights are downloaded, and the numbers are FID and Inception score.
"""

import ddpm_eval


def measure(samples: ddpm_eval.ImageSet, images: ddpm_eval.ImageSet) -> ddpm_eval.SampleQuality:
    """Print every number of the samples against the reference images."""
    quality = ddpm_eval.evaluate_quality(samples.array, images)
    print(quality.table().to_string(index=False))
    return quality


if __name__ == "__main__":
    measure(ddpm_eval.load_images("digits", "test"), ddpm_eval.load_images("digits", "train"))
