"""Section 4.3: the split into rate and distortion, Table 4, Fig. 5, and the same model under every
protocol.
"""

from ddpm_eval.metrics import timestep_sampling
from ddpm_eval.protocol import CHAIN_PROTOCOLS, CHAINS, PROTOCOLS, Protocol
from ddpm_eval.reporting import analyse, render
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import Baseline, FullBoundTerms, StratifiedBoundTerms, bound_name
from ddpm_eval.stages.scheduler import Job
from experiments.paper import published
from experiments.paper.presets import MAIN_CELL
from experiments.workspace import Workspace, floor_sum, variance_floors

STAGES = ("train", "baseline", "bound-train", "bound-test-protocols", "bound-test-chains")


def jobs(workspace: Workspace) -> list[Job]:
    """Return the job of the paper's model."""
    return [workspace.job(MAIN_CELL, STAGES)]


def section(workspace: Workspace) -> Section:
    """Render the split, Table 4, Fig. 5 and the bound's terms."""
    atoms = workspace.bound()
    if atoms is None:
        return Section("Rate and distortion (Table 4, Fig. 5)")
    spec, floors = workspace.spec(), variance_floors(workspace, "trained")
    protocol = Protocol.model_validate_json(atoms.protocol).caption()
    how = (
        f"{spec.data.name} test set, n = {len(atoms.image_id)} images, {protocol}, 95% intervals over images"
    )
    paper = published.table_4()
    curve = analyse.rate_distortion_curve(atoms)
    terms = analyse.terms_table(atoms, floors)
    tables = [
        render.write_table(
            analyse.split_table(atoms, spec.diffusion.variance, published.SPLIT_BITS_PER_DIM),
            workspace.tables / "split",
            f"The bound split into rate L_1 + ... + L_(T-1), distortion L_0 and prior L_T; {how}. {workspace.beside_paper()}",
        ),
        render.write_table(
            analyse.table4(atoms, paper),
            workspace.tables / "table4",
            f"Progressive lossy compression: rate received before each estimate of x_0, and its error; {how}. "
            f"{workspace.beside_paper()}",
        ),
    ]
    baseline = workspace.result("baseline", Baseline)
    if baseline is not None:
        caption = (
            f"The model's bound beside a Gaussian fitted to the {baseline.n_train} training images: its exact negative log "
            "likelihood (images spread over their 8-bit bins), and the exact bound of its exact denoiser (unclipped, exact "
            f"decoder, {baseline.variance}, no noise drawn); {spec.data.name} test set, 95% intervals over images. "
            "The bound may be below the likelihood: the decoder's outer bins are open (docs/protocol.md)."
        )
        tables.append(
            render.write_table(
                analyse.baseline_table(atoms, baseline), workspace.tables / "baseline", caption
            )
        )
    figures = [
        render.write_figure(
            render.plot_rate_distortion(curve, paper),
            curve,
            workspace.figures / "rate_distortion",
            f"Rate and distortion over the reverse process (Fig. 5); {how}. Crosses: the paper's Table 4, CIFAR-10.",
        ),
        render.write_figure(
            render.plot_terms(terms), terms, workspace.figures / "terms", f"Every term of the bound; {how}."
        ),
    ]
    return Section("Rate and distortion (Table 4, Fig. 5)", "", tables, figures)


def protocols_section(workspace: Workspace) -> Section:
    """Render the comparison of one model under all stored protocols, and of test and training images."""
    spec = workspace.spec()
    names = [name for name in workspace.entries() if name.startswith("bound/test/")]
    stored = [workspace.result(name, FullBoundTerms) for name in names]
    results = sorted(
        (a for a in stored if a is not None), key=lambda a: not a.protocol.startswith('{"name":"paper",')
    )
    if not results:
        return Section("One model under every protocol")
    floors = [
        floor_sum(variance_floors(workspace, Protocol.model_validate_json(a.protocol).variance))
        for a in results
    ]
    tables = [
        render.write_table(
            analyse.protocol_table(results, spec.diffusion.variance, floors),
            workspace.tables / "protocols",
            "The same network and images under different protocols, bits/dim with 95% intervals over images. The floor is what "
            "the variance costs whatever the network does; the difference is paired, from the first row.",
        )
    ]
    train, test = (
        workspace.result("bound/train/paper", FullBoundTerms),
        workspace.result("bound/test/paper", FullBoundTerms),
    )
    if train is not None and test is not None:
        caption = f"Training against test images, protocol paper, n = {len(train.image_id)} and {len(test.image_id)}."
        tables.append(render.write_table(analyse.gap_table(train, test), workspace.tables / "gap", caption))
    return Section("One model under every protocol", _EXPLANATION, tables, _estimator_figure(workspace))


_EXPLANATION = """
A bits/dim figure means nothing without its protocol. Here one set of network evaluations is read under each: the reverse
variance (optimal: the isotropic one that fits the errors measured on training images), x_0 estimates clipped or not, and
the decoder's CDF (exact, or the tanh approximation of the authors' code).
"""


def chains_section(workspace: Workspace) -> Section:
    """Render bits/dim against the number of steps, under each variance."""
    title = "Bits/dim against the number of steps"
    spec = workspace.spec()
    found: list[analyse.Atoms | None] = []
    for protocol in CHAIN_PROTOCOLS:
        full = PROTOCOLS["paper"] if protocol.variance == spec.diffusion.variance else protocol
        found.append(workspace.result(bound_name("test", full), FullBoundTerms))
        names = [bound_name("test", protocol, few=True, chain=chain) for chain in CHAINS]
        found.extend(workspace.result(name, StratifiedBoundTerms) for name in names)
    results = [atoms for atoms in found if atoms is not None]
    if len(results) <= len(CHAIN_PROTOCOLS):
        return Section(title)
    frame = analyse.protocol_table(results, spec.diffusion.variance)
    total = [column for column in frame if column.startswith("total")]
    frame = frame[["variance", "steps", *total, "estimator", "network_evaluations", "n_images"]]
    caption = (
        f"The bound of chains of fewer, evenly spaced steps: each is a bound of its own. {spec.data.name} test set, x_0 "
        "clipped, tanh decoder, 95% intervals over images. Optimal: the isotropic variance that fits the errors measured on "
        "training images (Bao et al. 2022)."
    )
    figure = render.plot_against(
        frame,
        "steps",
        "total_bits_per_dim",
        xlabel="steps of the chain",
        ylabel="bits/dim (test)",
        log=True,
        by="variance",
    )
    return Section(
        title,
        "",
        [render.write_table(frame, workspace.tables / "chains", caption)],
        [render.write_figure(figure, frame, workspace.figures / "chains", caption)],
    )


def _estimator_figure(workspace: Workspace) -> list[render.Illustration]:
    full = workspace.result("bound/test/paper", FullBoundTerms)
    if full is None:
        return []
    frame = analyse.estimator_table([full, *_simulated(workspace, full)])
    figure = render.plot_against(
        frame,
        "network_evaluations",
        "standard_error",
        xlabel="network evaluations",
        ylabel="standard error (bits/dim)",
        log=True,
        by="estimator",
    )
    caption = (
        "Standard error of the test bits/dim against network evaluations: all T terms of fewer images, against a few "
        "importance-sampled terms of every image (same network, images and noise; drawn from the stored terms)."
    )
    return [render.write_figure(figure, frame, workspace.figures / "estimators", caption)]


def _simulated(workspace: Workspace, full: FullBoundTerms) -> list[analyse.Atoms]:
    sizes = [k for k in (3, 5, 10, 20, 50, 100) if k < full.terms.shape[1]]
    return [timestep_sampling.from_full(full, evaluations, workspace.seed) for evaluations in sizes]
