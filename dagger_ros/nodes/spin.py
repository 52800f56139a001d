"""Takes what has arrived for a node and runs its callbacks, without an executor."""

from __future__ import annotations

from typing import Any

__all__ = ["poll"]


def poll(node: Any) -> int:
    """Runs the callback of every message that waits, subscription by subscription in the order of their creation.

    Publishing to a reader in the same process hands the message over before `publish` returns, so a graph in one
    process can be run by polling its nodes in turn: about 25 us a message, where an executor takes 370
    (benchmarks/lockstep.py compares whole ticks).

    Args:
        node: An rclpy node.

    Returns:
        How many messages there were.
    """
    count = 0
    for subscription in node.subscriptions:
        with subscription.handle:
            while (taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)) is not None:
                subscription.callback(taken[0])
                count += 1
    return count
