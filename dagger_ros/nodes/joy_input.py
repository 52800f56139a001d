"""A pad's messages in, the operator's acts out; what the sticks say is asked of `labeller`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sensor_msgs.msg import Joy, JoyFeedback

from dagger_ros.contract import (
    NEVER_NS,
    Act,
    Contract,
    DaggerError,
    Intent,
    Joystick,
    Label,
    Mode,
    Row,
    stamp_from_ns,
    stamp_ns,
)
from dagger_ros.contract.joystick import FAILURE_REASONS
from dagger_ros.expert import JoystickLabeller, Pad, load_pad
from dagger_ros.msg import OperatorAct
from dagger_ros.nodes.base import ContractNode
from dagger_ros.nodes.qos import ACT_QOS
from dagger_ros.nodes.share import config_file

__all__ = ["LABELS", "JoyInput", "mapped_pad"]

# takeover: the deadman takes control. shadow: it only says that the sticks are the label of what the policy does.
LABELS = ("takeover", "shadow")
# joy_node lets a pad tremble for 1 s at a time.
_TREMBLE_AGAIN_S = 0.8
# A problem of which only a number changes is logged once.
_WITHOUT_NUMBERS = str.maketrans("", "", "0123456789")


def mapped_pad(contract: Contract, source: str | Path, pad: str) -> tuple[Joystick, Pad]:
    """The mapping of a contract and the pad that it is used with.

    Args:
        contract: Of the task.
        source: Its file, for messages.
        pad: Name of a pad in `config/joysticks/`, or a file.

    Raises:
        DaggerError: If the contract has no mapping, or there is no such pad, or it does not fit the mapping.
    """
    if contract.expert is None:
        raise DaggerError(
            f"{source}: expected a section 'expert' that says what the axes and buttons of the pad do; "
            "found none. See docs/contract.md"
        )
    mapping = contract.expert.joystick
    return mapping, load_pad(_file_of(pad), mapping)


def _file_of(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    path = config_file(f"joysticks/{name}.yaml")
    if not path.is_file():
        shipped = sorted(p.stem for p in config_file("joysticks/xbox.yaml").parent.glob("*.yaml"))
        raise DaggerError(f"pad: expected a YAML file, or one of {', '.join(shipped)}; got {name!r}")
    return path


class JoyInput:
    """The joystick of one expert_label node.

    Args:
        node: Subscribes and publishes.
        on_deadman: Called when the deadman is pressed or let go, so that nobody waits for the next tick.
        pad: Name or file of the pad.
        operator_id: Who holds it.
        labels: One of `LABELS`.
        horizon: Ticks that the policy learns at once, >= 1; a shorter correction teaches it little.

    Raises:
        DaggerError: If the contract has no mapping, the pad does not fit it, or one of these is not what it should be.
    """

    def __init__(
        self,
        node: ContractNode,
        on_deadman: Callable[[], None],
        *,
        pad: str,
        operator_id: str,
        labels: str,
        horizon: int,
    ) -> None:
        contract = node.contract
        mapping, self._pad = mapped_pad(contract, node.contract_path, pad)
        if not operator_id:
            raise DaggerError(
                "parameter operator_id: expected who holds the pad, it stands on every label; got nothing"
            )
        self.labeller = JoystickLabeller(
            contract, mapping, self._pad, operator_id=operator_id, shadow=labels == "shadow"
        )
        self._node, self._on_deadman, self._horizon = node, on_deadman, horizon
        self._takes, self._shadow = False, labels == "shadow"
        self._asked, self._trembles_ns = False, NEVER_NS
        self._corrections = self._labels = 0
        self._said = ""
        self._act = OperatorAct(operator_id=operator_id, contract_sha256=contract.sha256)
        self._publisher = node.create_publisher(OperatorAct, "expert/act", ACT_QOS)
        self._feedback = node.create_publisher(JoyFeedback, "joy/set_feedback", ACT_QOS)
        self._subscription = node.create_subscription(Joy, "joy", self._on_joy, ACT_QOS)

    def problem(self) -> str:
        """Why the pad does not count now; empty: it counts."""
        return self.labeller.reader.problem(self._node.monotonic_ns())

    def values(self) -> Mapping[str, object]:
        """For diagnostics."""
        return {
            "pad": self._pad.description,
            "corrections": self._corrections,
            "labels of this correction": self._labels,
        }

    def follow(self) -> None:
        """At each period: repeats an emergency stop that is pressed, and logs why a pad is not believed."""
        if self.labeller.reader.estop_is_pressed(self._node.monotonic_ns()):
            self._publish(Act.ESTOP)
        self._tremble()
        problem = self.problem()
        said = problem.translate(_WITHOUT_NUMBERS)
        if said == self._said:
            return
        self._said = said
        if problem:
            self._node.get_logger().warning(f"hold: source=pad reason={problem}")
        else:
            self._node.get_logger().info("pad counts again")

    def _tremble(self) -> None:
        """The pad trembles while help is asked for, where it can."""
        now_ns, trembles = self._node.monotonic_ns(), self._trembles_ns != NEVER_NS
        again = now_ns - self._trembles_ns >= _TREMBLE_AGAIN_S * 1e9
        if trembles == self._asked and not (self._asked and again):
            return
        self._trembles_ns = now_ns if self._asked else NEVER_NS
        self._feedback.publish(JoyFeedback(type=JoyFeedback.TYPE_RUMBLE, intensity=float(self._asked)))

    def count(self, decision: Row) -> None:
        """Takes a decided row: whether help is asked for, whether the expert took over or lets go, how many labels."""
        self._asked = bool(decision["help"])
        takes = bool(decision["mode"] == Mode.EXPERT and decision["expert_intent"] & Intent.TAKEOVER)
        if takes != self._takes:
            self._takes = takes
            self._publish(Act.TAKEOVER if takes else Act.RELEASE)
            if takes:
                self._corrections += 1
                self._labels = 0
            else:
                self._tell()
        self._labels += bool(takes and decision["label_source"] == Label.EXPERT)

    def _tell(self) -> None:
        words = f"correction {self._corrections}: {self._labels} labels"
        if self._labels < self._horizon:
            self._node.get_logger().warning(f"{words}, fewer than the {self._horizon} that the policy learns at once")
        else:
            self._node.get_logger().info(words)

    def _on_joy(self, message: Any) -> None:
        pads = self._node.count_publishers(self._subscription.topic_name)
        if pads > 1:
            self.labeller.reader.distrust(f"{pads} nodes published joy, where one is expected")
        before = "deadman" in self.labeller.reader.pressed
        now_ns = self._node.monotonic_ns()
        stamp = stamp_ns(message.header.stamp)
        delay_ns = self._node.robot_ns() - stamp if stamp else 0
        acts = self.labeller.receive(message.axes, message.buttons, stamp, now_ns, delay_ns=delay_ns)
        for act in acts:
            self._publish_named(act)
        if self._node.active and before != ("deadman" in self.labeller.reader.pressed):
            self._on_deadman()

    def _publish_named(self, act: str) -> None:
        name, _, detail = act.partition(".")
        if name == "failure":
            self._publish(Act.FAILURE, failure=detail)
        elif name == "reasons":
            self._publish(Act.REASON, reason=FAILURE_REASONS[detail])
        elif name == "undo" and self._shadow:
            self._node.get_logger().warning("undo: with labels shadow there are no corrections that could be undone")
        elif name.upper() in Act.__members__:  # the deadman and modifiers are no acts
            self._publish(Act[name.upper()])

    def _publish(self, act: Act, *, reason: int = 0, failure: str = "") -> None:
        if not self._node.active and act is not Act.ESTOP:
            return
        self._act.act, self._act.reason, self._act.failure = int(act), int(reason), failure
        stamp_from_ns(self._act.header.stamp, self._node.robot_ns())
        self._publisher.publish(self._act)
