from outside import outside  # noqa: F401
from runs import copy, serial, survey  # noqa: F401
