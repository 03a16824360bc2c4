"""Work on a disk that is full, read-only or another user's, as a program that prints what came of it.

``python tests/disk_faults.py FAULT FOLDER WORK...`` does each work once undisturbed. Then it begins the work
under the fault (``full``, ``read-only``, ``permission`` or ``quota``), as a command of the command line. That
must end with exit code 2 and one sentence, and leave all files as they were. With the fault gone the work is
done to contents that equal the undisturbed ones. Disks are small tmpfs mounts in ``FOLDER``, and for
``quota`` a file that holds a btrfs file system; where none can be mounted the program says so and ends with
exit code 77.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from killed_work import WORKS, contents, done

from experiments.command_line import Commands

CANNOT_MOUNT = 77
NOBODY = 65534
DISK_BYTES = 2**25
BTRFS_BYTES = 2**28
BLOCK = bytes(2**12)
WHOLE_DISK = "0/5"
"""What btrfs calls the quota group of a file system's first volume."""


class Work(Commands):
    """The command line with one command, which does a work in the current folder."""

    def __init__(self, work):
        super().__init__()
        self.work = work

    def get_command(self, ctx, cmd_name):
        return click.Command(cmd_name, callback=lambda: self.work(Path()))


@contextmanager
def disk(folder, fault):
    """Mount an empty small disk while the block runs."""
    folder.mkdir()
    if fault == "quota":
        image = folder.with_name("image")
        with image.open("wb") as file:
            file.truncate(BTRFS_BYTES)
        run_or_stop("mkfs.btrfs", "-q", image)
        run_or_stop("mount", "-o", "loop", image, folder)
    else:
        run_or_stop("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def run_or_stop(*command):
    """Run a command that makes a disk; where it cannot be made the program ends."""
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        why = done.stderr.strip() if done.returncode != 0 else None
    except OSError as error:
        why = str(error)
    if why is not None:
        print(f"no such disk can be made here: {why}")
        sys.exit(CANNOT_MOUNT)


@contextmanager
def full(folder):
    """Let nothing fit on the disk while the block runs."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(BLOCK)
    yield
    (folder / "filler").unlink()


@contextmanager
def read_only(folder):
    """Let nothing be written on the disk while the block runs."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


@contextmanager
def permission(folder):
    """Let no file be changed by anyone but root while the block runs."""
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(folder)], check=True)
    yield
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)


@contextmanager
def quota(folder):
    """Let nothing more be written on the disk, which has room, while the block runs."""
    subprocess.run(["btrfs", "quota", "enable", str(folder)], check=True)
    subprocess.run(["btrfs", "quota", "rescan", "-w", str(folder)], check=True, capture_output=True)
    subprocess.run(["btrfs", "qgroup", "limit", str(len(BLOCK)), WHOLE_DISK, str(folder)], check=True)
    yield
    subprocess.run(["btrfs", "quota", "disable", str(folder)], check=True)


FAULTS = {"full": full, "read-only": read_only, "permission": permission, "quota": quota}


def attempted(work, folder, user):
    """Do a work in a process of its own, and return its exit code and what it says."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        os.chdir(folder)
        if user is not None:
            os.setuid(user)
        said = io.StringIO()
        code = -1
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                Work(work).main(["work"])
            except SystemExit as ended:
                code = ended.code
            except BaseException as error:
                said.write(f"Traceback of {error!r}")
        os.write(writing, said.getvalue().encode())
        os._exit(code % 256)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def survives(fault, name, folder):
    """Do a work under a fault and after it; return the sentence in which it was refused."""
    prepare, work = WORKS[name]
    folder.mkdir()
    done(prepare, folder / "before")
    shutil.copytree(folder / "before", folder / "undisturbed")
    shutil.copytree(folder / "before", folder / "imports")
    done(work, folder / "undisturbed")
    with contextlib.chdir(folder / "imports"):
        work(Path())  # in this process, so that nothing has to be imported later by another user
    with disk(folder / "disk", fault) as mounted:
        case = mounted / "case"
        shutil.copytree(folder / "before", case)
        before = contents(case)
        user = NOBODY if fault == "permission" and os.geteuid() == 0 else None
        with FAULTS[fault](mounted):
            code, said = attempted(work, case, user)
        sentences = re.findall(r"^Error: .*$", said, re.MULTILINE)
        assert (code, len(sentences)) == (2, 1) and "Traceback" not in said, (name, code, said)
        assert contents(case) == before, (name, "files changed")
        done(work, case)
        found, expected = contents(case), contents(folder / "undisturbed")
        assert found.keys() == expected.keys(), (name, found.keys() ^ expected.keys())
        assert all(found[path] == expected[path] for path in expected), name
    return sentences[0]


if __name__ == "__main__":
    for chosen in sys.argv[3:]:
        print(f"{chosen}: {survives(sys.argv[1], chosen, Path(sys.argv[2]) / chosen)}", flush=True)
