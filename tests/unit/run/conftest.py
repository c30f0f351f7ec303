from runs import copy, serial, survey  # noqa: F401
