"""Source lists: read, check, stream."""

from galbatch.catalog.checks import Validation, validate
from galbatch.catalog.reader import Catalog, open_catalog

__all__ = ["Catalog", "Validation", "open_catalog", "validate"]
