"""The throughput of this machine: kernels, stages and roofline, each checked for correctness before it is
timed; and what a survey costs at such rates."""

from galbatch.bench.cost import cost_table, rates_of_run
from galbatch.bench.kernels import GROUPS, kernel_table
from galbatch.bench.processes import process_table
from galbatch.bench.timing import environment, repeat

__all__ = ["GROUPS", "cost_table", "environment", "kernel_table", "process_table", "rates_of_run", "repeat"]
