"""Reads a policy and gives how it does on a fixed panel of held-out rollouts, and the report of a run."""

from dagger_ros.evaluation.panel import Panel, PanelResult, PanelRunner, RolloutResult, load_panel
from dagger_ros.evaluation.report import write_report

__all__ = ["Panel", "PanelResult", "PanelRunner", "RolloutResult", "load_panel", "write_report"]
