"""What a run is, in words: the head of its report and of ``show``."""

from pathlib import Path

from ddpm_eval.results.records import TrainingLog
from ddpm_eval.results.store import Store
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import parse
from experiments.paper.presets import DEVIATIONS, against_the_paper


def of_run(results: Path) -> dict[str, str]:
    """Describe the run of a results file; where nothing has been measured yet, by the checkpoint beside it.

    Raises:
        ValueError: if there is neither.
    """
    store = Store(results)
    entries = {entry.name: entry for entry in store.entries()}
    if "training" in entries:
        return describe(parse(entries["training"].provenance["spec"]), store.get("training", TrainingLog))
    from ddpm_eval.training import checkpoint, loop  # torch, only where the results do not say it

    saved = checkpoint.load(results.parent, prefixes=("model/", "log/"))
    return describe(saved.spec, loop.training_log(saved))


def describe(spec: RunSpec, log: TrainingLog) -> dict[str, str]:
    """Describe a run by labelled facts; of an imported one nothing is said of its training, which is not
    known.
    """
    network, diffusion = spec.network, spec.diffusion
    done = spec.model_copy(update={"train": spec.train.model_copy(update={"steps": log.steps})})
    sides = " and ".join(f"{side}x{side}" for side in network.attention_sides)
    trained = f", trained on the {_OBJECTIVES[diffusion.objective]}"
    return {
        "Data": f"{spec.data.name}, {spec.data.channels} x {spec.data.side} x {spec.data.side}",
        "Network": f"{log.parameters:,} parameters: {network.base_channels} channels times {network.multipliers}, "
        f"blocks per level: {network.blocks}, {f'attention at {sides}' if sides else 'attention in the middle only'}",
        "Predicts": f"{diffusion.prediction}, variance {diffusion.variance}{'' if log.imported else trained}",
        "Chain": f"T = {diffusion.timesteps}, {diffusion.schedule} schedule",
        "Training": _training(spec, log),
        "Seed": str(spec.seed),
        "Against the paper": against_the_paper(done),
    }


_OBJECTIVES = {"mse": "unweighted squared error", "vlb": "bound"}


def _training(spec: RunSpec, log: TrainingLog) -> str:
    if log.imported:
        return f"{log.reason}; how it was trained is not recorded"
    preset = f"preset {spec.preset}, " if spec.preset in DEVIATIONS else ""
    reason = f", {log.reason}" if log.reason else ""
    return f"{preset}{log.steps:,} updates of batch {spec.train.batch_size} ({log.status}{reason})"
