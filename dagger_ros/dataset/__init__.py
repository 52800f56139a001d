"""Reads and writes what was recorded: bags of messages, and rounds of episodes with their provenance."""

from dagger_ros.dataset.acts import ActLog, act_of
from dagger_ros.dataset.bag import BagWriter, RecordedTopic
from dagger_ros.dataset.episode import EpisodeInfo, Source, read_episode, write_episode
from dagger_ros.dataset.foreign import ForeignBag, Reading, StreamReport
from dagger_ros.dataset.frames import EpisodeFrames, StreamQuality, View, read_frames
from dagger_ros.dataset.imports import import_bag, prepare_import
from dagger_ros.dataset.inspect import RoundView, inspect_rounds
from dagger_ros.dataset.merge import merge_rounds
from dagger_ros.dataset.offline import write_rows
from dagger_ros.dataset.recover import Recovered, recover_episode, unfinished_episodes, unlisted_rounds
from dagger_ros.dataset.rounds import (
    Round,
    TrainingEpisode,
    check_round,
    contract_of_run,
    episode_folder,
    finish_round,
    keep_contract,
    labelled_frames,
    load_round,
    manifest_sha256,
    recorded_episodes,
    round_folder,
    round_folders,
    split_of,
    training_episodes,
    unlisted_episodes,
    verify_round,
)
from dagger_ros.dataset.rows import STAGES, percentiles_s, read_rows

__all__ = [
    "STAGES",
    "ActLog",
    "BagWriter",
    "EpisodeFrames",
    "EpisodeInfo",
    "ForeignBag",
    "Reading",
    "RecordedTopic",
    "Recovered",
    "Round",
    "RoundView",
    "Source",
    "StreamQuality",
    "StreamReport",
    "TrainingEpisode",
    "View",
    "act_of",
    "check_round",
    "contract_of_run",
    "episode_folder",
    "finish_round",
    "import_bag",
    "inspect_rounds",
    "keep_contract",
    "labelled_frames",
    "load_round",
    "manifest_sha256",
    "merge_rounds",
    "percentiles_s",
    "prepare_import",
    "read_episode",
    "read_frames",
    "read_rows",
    "recorded_episodes",
    "recover_episode",
    "round_folder",
    "round_folders",
    "split_of",
    "training_episodes",
    "unfinished_episodes",
    "unlisted_episodes",
    "unlisted_rounds",
    "verify_round",
    "write_episode",
    "write_rows",
]
