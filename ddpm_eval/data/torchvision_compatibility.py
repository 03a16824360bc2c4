"""The import of torchvision, also where its compiled operators do not fit the installed torch.

The published Linux wheel of torchvision is a CUDA build. Beside a CPU-only torch its library of operators
does not load, and the import fails for two operators that nothing here uses ("operator torchvision::nms
does not exist").
"""

import sys
import warnings
from types import ModuleType

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
"""The operators that torchvision's Python code refers to when it is imported."""

declared: list[object] = []
"""Libraries in which operators were declared; a declaration lives as long as its library."""


def import_torchvision() -> ModuleType:
    """Import torchvision; call this before anything that imports torchvision.

    Missing operators are declared and the import is repeated only if the import fails because of them.

    Raises:
        ValueError: if torchvision is missing, or cannot be imported for another reason.
    """
    import torch  # here, because a report looks at data sets' names and shapes where no torch is installed

    try:
        try:
            return _import()
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
            _declare_operators()
            return _import()
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"torchvision cannot be imported beside torch {torch.__version__}: {reason} "
            "(install the torchvision that belongs to this torch)"
        ) from error


def _import() -> ModuleType:
    with warnings.catch_warnings():
        # Pillow reads the images, so that torchvision's own extension is not needed
        warnings.filterwarnings("ignore", message="Failed to load image Python extension")
        try:
            import torchvision  # here, because the import may have to be repeated
            import torchvision.datasets
        except Exception:
            for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[module]  # half initialised: the next import starts afresh
            raise
    return torchvision


def _declare_operators() -> None:
    import torch  # as in `import_torchvision`

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    declared.append(library)
