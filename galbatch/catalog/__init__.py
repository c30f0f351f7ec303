"""Source lists: read, check, stream."""

from galbatch.catalog.reader import Catalog, open_catalog
from galbatch.catalog.soundness import Validation, validate

__all__ = ["Catalog", "Validation", "open_catalog", "validate"]
