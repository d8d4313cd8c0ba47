"""What a trace shows, for people (`terminal`) and for programs (`records`)."""

from imbdyn.report.judge import judge
from imbdyn.report.records import records
from imbdyn.report.study import show_study, study_records
from imbdyn.report.terminal import report_console, show_findings, show_runs

__all__ = ["judge", "records", "report_console", "show_findings", "show_runs", "show_study", "study_records"]
