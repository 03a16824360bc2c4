"""What a run is, in words: the head of its report and of the command ``show``, and what stands beside it."""

from pathlib import Path

from ddpm_eval.reporting.training_caveats import training_caveat
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.results.store import Store
from ddpm_eval.spec import NamedNetwork, RunSpec
from ddpm_eval.spec_text import parse
from experiments.paper.presets import DEVIATIONS, against_the_paper
from experiments.study import Study

OBJECTIVES = {"mse": "unweighted squared error", "vlb": "bound"}


def describe_run(results: Path) -> dict[str, str]:
    """Describe the run of a results file; where nothing is measured yet, by the checkpoint beside it.

    Raises:
        ValueError: if there is neither.
    """
    store = Store(results)
    trainings = [entry for entry in store.entries() if entry.name == "training"]
    if trainings:
        newest = trainings[-1]
        log = store.get("training", TrainingLog, newest.key)
        return describe(parse(newest.provenance["spec"]), log)
    from experiments.trained_run import trained_log  # torch, only where the results do not say it

    return describe(*trained_log(results.parent))


def describe(spec: RunSpec, log: TrainingLog) -> dict[str, str]:
    """Describe a run by labelled texts; nothing is said of an imported run's training, which is not known."""
    done = spec.model_copy(update={"train": spec.train.model_copy(update={"steps": log.steps})})
    by_importance = ", times drawn by importance" if spec.train.time_sampling == "importance" else ""
    objective = f"{OBJECTIVES[spec.diffusion.objective]}{by_importance}"
    trained = "" if log.imported else f", trained on the {objective}"
    caveat = training_caveat(spec.train, log)
    return {
        "Data": describe_data(spec),
        "Network": _network(spec, log.parameters),
        "Predicts": f"{spec.diffusion.prediction}, variance {spec.diffusion.variance}{trained}",
        "Chain": f"T = {spec.diffusion.timesteps}, {spec.diffusion.schedule} schedule",
        "Training": _training(spec, log),
        "Seed": str(spec.seed),
        **({"Caution": caveat} if caveat else {}),
        "Against the paper": against_the_paper(done),
    }


def describe_data(spec: RunSpec) -> str:
    """Return the data set's name and the shape of its images."""
    return f"{spec.data.name}, {spec.data.channels} x {spec.data.side} x {spec.data.side}"


def paper_columns(study: Study) -> str:
    """Return the sentence that says what the paper's columns mean for a study's data, as far as is known."""
    name = study.main.spec.data.name
    if name == "cifar10":
        whose = (
            "those of its eps / L_simple model of CIFAR-10"
            if study.preset is None
            else "its CIFAR-10 results"
        )
        return f"The paper's columns are {whose} after 800,000 updates of batch 128."
    if ":" in name and not name.startswith("lsun:"):
        return f"The paper's columns are of CIFAR-10, and more than an orientation only if {name} is that."
    return "The paper's columns are of CIFAR-10: another data set, shown for orientation only."


def _network(spec: RunSpec, parameters: int) -> str:
    network = spec.network
    if isinstance(network, NamedNetwork):
        given = ", ".join(f"{name}={value}" for name, value in network.arguments)
        return f"{parameters:,} parameters: {network.reference}({given})"
    sides = " and ".join(f"{side}x{side}" for side in network.attention_sides)
    attention = f"attention at {sides}" if sides else "attention in the middle only"
    return (
        f"{parameters:,} parameters: {network.base_channels} channels times {network.multipliers}, "
        f"blocks per level: {network.blocks}, {attention}"
    )


def _training(spec: RunSpec, log: TrainingLog) -> str:
    if log.imported:
        return f"{log.reason}; how it was trained is not recorded"
    preset = f"preset {spec.preset}, " if spec.preset in DEVIATIONS else ""
    state = log.status if not log.averaged else "only the averaged weights were kept"
    reason = f", {log.reason}" if log.reason and not log.averaged else ""
    return f"{preset}{log.steps:,} updates of batch {spec.train.batch_size} ({state}{reason})"
