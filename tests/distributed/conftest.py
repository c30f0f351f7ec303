from outside import outside  # noqa: F401
from runs import serial, survey  # noqa: F401
