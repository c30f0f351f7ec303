"""Pictures and pages of a finished run: figure of a source, HTML report, exports for other tools."""

from galbatch.report.run_plots import RunPlots
from galbatch.report.show import show

__all__ = ["RunPlots", "show"]
