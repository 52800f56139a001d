"""Reads frames and writes them as others read them. Not loaded by the nodes, which have no use for its libraries."""

from dagger_ros.dataset.export.lerobot import export_lerobot, load_columns, verify_lerobot
from dagger_ros.dataset.export.tables import export_file
from dagger_ros.dataset.export.writer import ExportSettings

__all__ = ["ExportSettings", "export_file", "export_lerobot", "load_columns", "verify_lerobot"]
