"""All stages by the names that plans and progress use; the only module that knows every stage."""

from pathlib import Path

from ddpm_eval.protocol import CHAIN_PROTOCOLS, CHAINS, COMPARED, PROTOCOLS
from ddpm_eval.results.records import (
    QUALITY_OF_OTHER_VARIANCE,
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
)
from ddpm_eval.stages.base import Stage
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.image_stages import BaselineStage, ReferenceImagesStage, SimpleCodesStage
from ddpm_eval.stages.quality_stages import (
    CoverageStage,
    FeatureSource,
    NeighboursStage,
    OtherVarianceQualityStage,
    QualityOverStepsStage,
    QualityOverTimeStage,
    QualityStage,
)
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.sampling_stages import InterpolationStage, SamplesStage, TrajectoryStage, other_times
from ddpm_eval.stages.shared_latents_stage import SharedLatentsStage
from ddpm_eval.stages.training_stage import TrainingStage

NAMED = (PROTOCOLS["paper"], PROTOCOLS["exact"])


def stages(run: Run, inception_weights: Path | None = None) -> dict[str, tuple[Stage, ...]]:
    """Return the stages of a run by name.

    Args:
        run: to be measured; the chains that are shorter than its own are among the stages.
        inception_weights: file of Inception's weights; None measures quality with the data set's classifier.
    """
    source = FeatureSource(inception_weights)
    timesteps = run.spec.diffusion.timesteps
    lengths = [length for length in CHAINS if length < timesteps]
    return {
        "train": (TrainingStage(),),
        "reference-images": (ReferenceImagesStage(),),
        "baseline": (BaselineStage(),),
        "simple-codes": (SimpleCodesStage(),),
        "bound-train": (BoundStage("train", NAMED),),
        "bound-test": (BoundStage("test", NAMED),),
        "bound-test-protocols": (BoundStage("test", COMPARED),),
        "bound-test-stratified": (BoundStage("test", NAMED, "stratified"),),
        "bound-test-protocols-stratified": (BoundStage("test", COMPARED, "stratified"),),
        "bound-train-stratified": (BoundStage("train", NAMED[:1], "stratified"),),
        "bound-test-chains": tuple(
            BoundStage("test", CHAIN_PROTOCOLS, "stratified", num_steps=length) for length in lengths
        ),
        "sample": (SamplesStage(),),
        "progressive": (TrajectoryStage(),),
        "shared-latents": (SharedLatentsStage(),),
        "interpolate": (InterpolationStage(),),
        "interpolate-times": (InterpolationStage(other_times(timesteps), pairs=1),),
        "quality": (QualityStage(source),),
        "coverage": (CoverageStage(source),),
        QUALITY_OVER_TIME: (QualityOverTimeStage(source),),
        **{name: (QualityOverStepsStage(source, method),) for method, name in QUALITY_OVER_STEPS.items()},
        QUALITY_OF_OTHER_VARIANCE: (OtherVarianceQualityStage(source),),
        "neighbours": (NeighboursStage(source),),
    }
