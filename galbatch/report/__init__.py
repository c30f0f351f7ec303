"""Pictures and pages of a finished run: figure of a source, HTML report, exports for other tools."""

from galbatch.lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__, run_plots="RunPlots show")
