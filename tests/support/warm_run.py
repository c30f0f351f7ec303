"""Imported by the process from which runs are forked: see ``runs.start``."""

import child_run

child_run.warm()
