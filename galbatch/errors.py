"""Every error a user can see. Each says what, which, the values, and what to do; each pickles.

A bad galaxy never raises: it is a flag and a row in the ledger. These are for a bad call or a bad run.
"""


class GalbatchError(Exception):
    """Base of all errors of galbatch: the message alone is what a user reads."""

    exit_code = 1


class InputError(GalbatchError):
    """A catalogue, survey file, image or PSF cannot be used."""


class ConfigError(GalbatchError):
    """A setting or a combination of options is wrong."""


class ModelError(GalbatchError):
    """A model folder is missing, damaged, or does not fit the data."""


class RunError(GalbatchError):
    """A run folder is in a state that the command cannot work with."""


class Stopped(GalbatchError):
    """The run stopped before its end and can be resumed."""

    exit_code = 4
