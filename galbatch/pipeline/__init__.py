"""One batch, start to finish, in one process: cut, sample, measure."""

from galbatch.pipeline.batch import process_batch
from galbatch.pipeline.context import Context

__all__ = ["Context", "process_batch"]
