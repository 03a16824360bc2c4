"""Seeded damage to files, and what came of reading them: for tests that no damage passes for numbers."""

import os
from collections import Counter

import numpy as np

CASES = int(os.environ.get("DDPM_EVAL_DAMAGE_CASES", "48"))
"""Damaged copies of each kind of file; 500 take a minute."""
LARGEST_BLOCK = 512


def flip_bits(content, other, rng):
    for position in rng.integers(len(content), size=rng.integers(1, 9)):
        content[position] ^= 1 << int(rng.integers(8))
    return content


def flip_one_bit_of_the_head(content, other, rng):
    content[rng.integers(min(len(content), 4096))] ^= 1 << int(rng.integers(8))
    return content


def replace_bytes(content, other, rng):
    for position in rng.integers(len(content), size=rng.integers(1, 9)):
        content[position] = rng.integers(256)
    return content


def truncate(content, other, rng):
    return content[: rng.integers(len(content))]


def zero_a_block(content, other, rng):
    first, length = rng.integers(len(content)), rng.integers(1, LARGEST_BLOCK)
    content[first : first + length] = bytes(len(content[first : first + length]))
    return content


def cut_a_block(content, other, rng):
    first, length = rng.integers(len(content)), rng.integers(1, LARGEST_BLOCK)
    return content[:first] + content[first + length :]


def repeat_a_block(content, other, rng):
    first, length = rng.integers(len(content)), rng.integers(1, LARGEST_BLOCK)
    return content[: first + length] + content[first:]


def swap_blocks(content, other, rng):
    first, second = rng.integers(len(content), size=2)
    length = int(rng.integers(1, LARGEST_BLOCK))
    a, b = content[first : first + length], content[second : second + length]
    if len(a) == len(b):
        content[first : first + length], content[second : second + length] = b, a
    return content


def join_with_another_file(content, other, rng):
    position = rng.integers(64, len(content))  # before, it would be the other file, whole
    return content[:position] + other[position:]


DAMAGES = (
    flip_bits,
    flip_one_bit_of_the_head,
    replace_bytes,
    truncate,
    zero_a_block,
    cut_a_block,
    repeat_a_block,
    swap_blocks,
    join_with_another_file,
)


def damaged_copies(content, other, n=CASES):
    """Yield n damaged copies of a file's bytes; ``other`` are those of another file of the kind."""
    for case in range(n):
        rng = np.random.default_rng([14, case])
        yield bytes(DAMAGES[case % len(DAMAGES)](bytearray(content), other, rng))


def outcomes(path, content, other, use):
    """Count what becomes of damaged copies at ``path``: refused in a sentence, or equal to what was.

    Args:
        path: where the copies are written.
        content: the bytes of the whole file.
        other: those of another file of the kind.
        use: reads the file and asserts that the values are those of the whole file.
    """
    path.write_bytes(content)
    use(path)  # the whole file is not refused
    counts = Counter()
    for case, damaged in enumerate(damaged_copies(content, other)):
        path.write_bytes(damaged)
        os.utime(path, (case, case))  # two writes can have one time
        try:
            use(path)
            counts["equal"] += 1
        except ValueError as error:
            assert isinstance(error, ValueError) and path.name in str(error), f"case {case}: {error!r}"
            assert "\n" not in str(error) and len(str(error)) < 1000, f"case {case}: {error}"
            counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(
                f"case {case}, {DAMAGES[case % len(DAMAGES)].__name__}: {error!r}"
            ) from error
    print(f"{path.name}: {dict(counts)}")
    return counts
