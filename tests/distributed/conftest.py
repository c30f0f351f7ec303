from runs import serial, survey  # noqa: F401
