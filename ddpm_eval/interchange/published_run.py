"""A run for others to measure: its averaged weights alone, and a card that says what they are.

The card is the folder's README.md. It begins with fields between two lines of three hyphens, as the cards of
the hub do; ``weights_digest`` is one of them. A folder whose card is missing, or names other weights, is
refused: its numbers would be taken for those that the card states.
"""

import re
from pathlib import Path

from ddpm_eval.files import new_folder, write_text
from ddpm_eval.training import checkpoint
from ddpm_eval.training.checkpoint import FILE_NAME

CARD = "README.md"
CARD_FIELD = "card"
"""The field of a checkpoint's metadata that says which card belongs to it."""
DIGEST_FIELD = "weights_digest"


def publish_run(run: Path, out: Path, card: str) -> None:
    """Write a run's averaged weights, float32 and without the optimiser's state, and their card.

    Args:
        run: the run's folder.
        out: the folder to write; it must not exist, or be empty.
        card: the card's text; the fields at its head are written here.

    Raises:
        ValueError: if the run cannot be read, or ``out`` is not empty or cannot be written.
    """
    with new_folder(out) as folder:
        published = checkpoint.averaged(checkpoint.load(run, prefixes=("ema/", "log/")))
        published.metadata[CARD_FIELD] = CARD
        digest = checkpoint.weights_digest(published.tensors)
        head = f"---\nlicense: mit\nlibrary_name: ddpm_eval\n{DIGEST_FIELD}: {digest}\n---\n\n"
        checkpoint.save(folder / FILE_NAME, published)
        write_text(folder / CARD, head + card)


def check_card(folder: Path) -> None:
    """Check that the weights of a published run are those of its card; other runs have none.

    Raises:
        ValueError: if the card is missing, or names other weights.
    """
    name = checkpoint.load(folder, prefixes=()).metadata.get(CARD_FIELD)
    if name is None:
        return
    path = folder / CARD
    if not path.is_file():
        raise ValueError(
            f"{folder} is a published run, but its card {CARD} is missing: fetch both files again"
        )
    found = re.search(rf"^{DIGEST_FIELD}: (\w+)$", path.read_text(errors="replace"), re.MULTILINE)
    digest = checkpoint.weights_digest(folder)
    if found is None or found[1] != digest:
        stated = found[1] if found else "no weights"
        raise ValueError(f"{path} is the card of {stated}, but the weights beside it are {digest}")
