"""Configures and activates the managed nodes one after the other, and ends the launch where one refuses."""

import threading

from launch import Event, EventHandler
from launch.actions import OpaqueFunction, RegisterEventHandler
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.impl.implementation_singleton import rclpy_implementation

# How often a wait looks whether the launch is over.
LOOK_S = 0.2
STEPS = {
    State.PRIMARY_STATE_UNCONFIGURED: (Transition.TRANSITION_CONFIGURE, "configured"),
    State.PRIMARY_STATE_INACTIVE: (Transition.TRANSITION_ACTIVATE, "activated"),
}


class Refused(Event):
    """A node is not up, and why, in words."""

    name = "dagger_ros.Refused"

    def __init__(self, words):
        self.words = words


class LaunchIsOverError(Exception):
    """The launch is."""


def bring_up(names):
    """Actions that bring nodes up, in this order.

    Args:
        names: Full names, such as /left/supervisor.
    """

    def start(context):
        node = get_ros_node(context)
        context.add_completion_future(context.asyncio_loop.run_in_executor(None, bring_up_all, context, node, names))

    def refuse(context):
        # An exception is what makes `ros2 launch` exit with an error.
        raise RuntimeError(context.locals.event.words)

    handler = EventHandler(matcher=lambda event: isinstance(event, Refused), entities=[OpaqueFunction(function=refuse)])
    return [RegisterEventHandler(handler), OpaqueFunction(function=start)]


def bring_up_all(context, node, names):
    """Runs in a thread of its own, since each answer is waited for."""
    try:
        for name in names:
            words = bring_up_one(context, node, name)
            if words:
                event = Refused(f"{name} refused to be {words}, for the reason that it gives above; all are stopped")
                context.asyncio_loop.call_soon_threadsafe(context.emit_event_sync, event)
                return
    except (LaunchIsOverError, rclpy_implementation.InvalidHandle):  # the node that asks goes with the launch
        return


def bring_up_one(context, node, name):
    """Brings one node up. Returns what it refused to be; empty: it is active."""
    while True:
        state = ask(context, node, GetState, f"{name}/get_state", GetState.Request()).current_state.id
        if state == State.PRIMARY_STATE_ACTIVE:
            return ""
        if state not in STEPS:
            return "brought up"
        transition, words = STEPS[state]
        request = ChangeState.Request(transition=Transition(id=transition))
        if not ask(context, node, ChangeState, f"{name}/change_state", request).success:
            return words


def ask(context, node, type_, service, request):
    """The answer of a service; it is waited for as long as the launch runs."""
    client = node.create_client(type_, service)
    try:
        while not client.wait_for_service(timeout_sec=LOOK_S):
            if context.is_shutdown:
                raise LaunchIsOverError
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _future: answered.set())
        while not answered.wait(LOOK_S):
            if context.is_shutdown:
                raise LaunchIsOverError
        return future.result()
    finally:
        node.destroy_client(client)
