"""Reads policies and gives how they do on panels of held-out rollouts, what may be said of it, and the report."""

from dagger_ros.evaluation.panel import Panel, PanelResult, RolloutKey, RolloutResult, load_panel, same_rollouts
from dagger_ros.evaluation.report import write_report
from dagger_ros.evaluation.runner import ENGINES, PanelRunner, run_rollout, trace_path
from dagger_ros.evaluation.statistics import Paired, Trend, covariate_shift, mean_ci95, paired, trend, wilson
from dagger_ros.evaluation.trace import Trace

__all__ = [
    "ENGINES",
    "Paired",
    "Panel",
    "PanelResult",
    "PanelRunner",
    "RolloutKey",
    "RolloutResult",
    "Trace",
    "Trend",
    "covariate_shift",
    "load_panel",
    "mean_ci95",
    "paired",
    "run_rollout",
    "same_rollouts",
    "trace_path",
    "trend",
    "wilson",
    "write_report",
]
