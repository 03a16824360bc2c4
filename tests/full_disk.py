"""A limit on the size of files, which stands for a full disk."""

import resource
from contextlib import contextmanager


@contextmanager
def full_after(size):
    """Let no file of this process grow beyond a number of bytes while the block runs."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
