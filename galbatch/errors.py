"""Every error a user can see. Each says what, which, the values, and what to do; each pickles.

A bad galaxy never raises: it is a flag and a row in the ledger. These are for a bad call or a bad run.
"""

import errno

_REMEDIES = {
    errno.ENOSPC: "The disk is full: make room",
    errno.EDQUOT: "Your quota is used up: make room, or ask for more",
    errno.EROFS: "The disk is read-only: mount it for writing, or use another",
    errno.EFBIG: "The file is larger than is allowed here: raise the limit (`ulimit -f unlimited`)",
    errno.EMFILE: "Too many files are open: raise the limit (`ulimit -n 4096`)",
    errno.ENFILE: "Too many files are open on this machine: end other programs, or ask its administrator",
    errno.ENOMEM: "Memory is short: fewer --workers or --draws, or more memory",
    errno.EAGAIN: "No more processes or threads can start: raise the limit (`ulimit -u`), or fewer --workers",
}
_TEXTS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "File too large": errno.EFBIG,
    "Too many open files": errno.EMFILE,
    "Cannot allocate memory": errno.ENOMEM,
    "can't allocate memory": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
}


class GalbatchError(Exception):
    """Base of all errors of galbatch: the message alone is what a user reads."""

    exit_code = 1


class InputError(GalbatchError):
    """A catalogue, survey file, image or PSF cannot be used."""


class ReadError(InputError):
    """A file cannot be opened or read: its content is not at fault, and it may be readable later."""


class ConfigError(GalbatchError):
    """A setting or a combination of options is wrong."""


class ModelError(GalbatchError):
    """A model folder is missing, damaged, or does not fit the data."""


class RunError(GalbatchError):
    """A run folder is in a state that the command cannot work with."""


class Stopped(GalbatchError):
    """The run stopped before its end and can be resumed."""

    exit_code = 4


def limit_of(error: BaseException | None) -> int | None:
    """The errno of the limit of the machine that is behind an error (a full or read-only disk, memory, open
    files, processes), however a library wrapped it; None where it is something else."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return errno.ENOMEM
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            return error.errno
        for text, number in _TEXTS.items():
            if text in str(error):
                return number
        error = error.__cause__ or error.__context__
    return None


def limit_remedy(error: BaseException) -> str:
    """What to do about the limit of the machine behind an error, without a full stop; '' if there is none."""
    return _REMEDIES.get(limit_of(error) or 0, "")
