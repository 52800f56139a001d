"""Takes what has arrived for a node and runs its callbacks, without an executor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["poll"]


def poll(subscriptions: Iterable[Any]) -> int:
    """Runs the callback of at most one message of each subscription, in their order.

    Publishing to a reader in the same process hands the message over before `publish` returns, so a graph in one
    process can be run by polling its nodes in turn: about 25 us a message, where an executor takes 370.

    Args:
        subscriptions: Of an rclpy node, as `list(node.subscriptions)` gives them.

    Returns:
        How many messages there were; 0: nothing waits.
    """
    count = 0
    for subscription in subscriptions:
        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is not None:
            # As rclpy's executors do.
            informed = subscription._callback_type is subscription.CallbackType.WithMessageInfo
            subscription.callback(*(taken if informed else taken[:1]))
            count += 1
    return count
