"""The throughput of this machine, stage by stage, each checked for correctness before it is timed; and what a
survey costs at the rates of a run (``galbatch.bench.cost``)."""

from galbatch.bench.kernels import GROUPS, kernel_table
from galbatch.bench.timing import environment, repeat

__all__ = ["GROUPS", "environment", "kernel_table", "repeat"]
