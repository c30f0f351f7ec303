"""The throughput of this machine: kernels, stages and roofline, each checked for correctness before it is timed."""

from galbatch.bench.kernels import kernel_table
from galbatch.bench.timing import environment, repeat

__all__ = ["environment", "kernel_table", "repeat"]
