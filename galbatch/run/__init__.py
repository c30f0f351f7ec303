"""A run over a whole catalogue: plan, cluster, workers, resume. The only part that knows Dask."""

from galbatch.run.inspect import status, verify
from galbatch.run.process import process, resume

__all__ = ["process", "resume", "status", "verify"]
