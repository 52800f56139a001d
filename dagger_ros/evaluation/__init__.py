"""Reads policies and gives how they do on panels of held-out rollouts, what may be said of it, and the report."""

from dagger_ros.evaluation.panel import (
    NotFiniteError,
    Panel,
    PanelResult,
    RolloutKey,
    RolloutResult,
    load_panel,
    same_rollouts,
)
from dagger_ros.evaluation.report import RESULT_SCHEMA, Stage, write_report
from dagger_ros.evaluation.runner import ENGINES, PanelRunner, check_result, run_rollout, trace_path
from dagger_ros.evaluation.statistics import (
    FEWEST_PAIRS,
    Paired,
    Shift,
    Trend,
    covariate_shift,
    mean_ci95,
    paired,
    trend,
    wilson,
)
from dagger_ros.evaluation.stopping import against, best_of, plateau
from dagger_ros.evaluation.trace import Trace

__all__ = [
    "ENGINES",
    "FEWEST_PAIRS",
    "RESULT_SCHEMA",
    "NotFiniteError",
    "Paired",
    "Panel",
    "PanelResult",
    "PanelRunner",
    "RolloutKey",
    "RolloutResult",
    "Shift",
    "Stage",
    "Trace",
    "Trend",
    "against",
    "best_of",
    "check_result",
    "covariate_shift",
    "load_panel",
    "mean_ci95",
    "paired",
    "plateau",
    "run_rollout",
    "same_rollouts",
    "trace_path",
    "trend",
    "wilson",
    "write_report",
]
