"""operator_queue: one pad in, one for each robot out: the whole of it for one, at rest or silent for the others.

A robot that hears a pad at rest believes that somebody could take over. So only those hear one whose rule asks for
help, and holds when nobody answers. One that a person has to watch hears nothing while the person is elsewhere, and is
held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sensor_msgs.msg import Joy, JoyFeedback
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dagger_ros.contract import NEVER_NS, DaggerError, Joystick, Mode, load_contract, stamp_ns
from dagger_ros.expert import Pad, PadReader
from dagger_ros.msg import GateDecision, GateSettings, HelpRequest
from dagger_ros.nodes.base import LEVEL_OK, LEVEL_WARN, LOCKSTEP, ContractNode, run_node
from dagger_ros.nodes.joy_input import mapped_pad
from dagger_ros.nodes.parameters import NodeParameter
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS
from dagger_ros.supervisor import ROBOT_GATED

__all__ = ["OperatorQueueNode", "main"]

# A robot whose supervisor said nothing for so long is not there: some ticks of any control rate.
_GONE_NS = 1_000_000_000
# Buttons that have to be the same for every robot, since one hand is on them whoever has the operator.
_SHARED = ("deadman", "estop")


@dataclass
class _Robot:
    """What is known of one robot.

    Args:
        name: Its namespace, as it was given.
        reader: Of the pad, with the mapping of its contract.
        mapping: Of its contract.
        pad: Publisher of what it hears.
        asks: The rule asks for help.
        why: It asked, in words.
        asks_by_rule: Its rule asks when it needs somebody, and holds it when nobody comes.
        mode: Of its supervisor; None: never heard.
        decided_ns: When its supervisor was last heard, monotonic.
    """

    name: str
    reader: PadReader
    mapping: Joystick
    pad: Any
    asks: bool = False
    why: str = ""
    asks_by_rule: bool = False
    mode: Mode | None = None
    decided_ns: int = NEVER_NS

    def is_heard(self, now_ns: int) -> bool:
        """Whether its supervisor is there."""
        return self.decided_ns != NEVER_NS and now_ns - self.decided_ns <= _GONE_NS

    def needs_nobody(self, now_ns: int) -> bool:
        """Whether who has it may leave: it is gone, or asks for nothing and is neither driven nor held."""
        return not self.is_heard(now_ns) or not (self.asks or self.mode in (Mode.EXPERT, Mode.HOLD))

    def words(self, now_ns: int) -> str:
        """How it is."""
        if self.mode is None or not self.is_heard(now_ns):
            return "not heard"
        return f"{self.mode.name}, asks for help: {self.why}" if self.asks else self.mode.name


class OperatorQueueNode(ContractNode):
    """Gives the operator to the robot that asked first, or to the one that was picked.

    The pad changes hands only while nothing on it is pressed or pushed, so that no robot takes for its own what was
    meant for another. The emergency stop reaches every robot, whoever has the operator.
    """

    NODE = "operator_queue"
    PARAMETERS = (
        NodeParameter("robots", [""], "namespace of each robot; needed"),
        NodeParameter("contracts", [""], "task contract of each robot, YAML files in the order of robots; needed"),
        NodeParameter("pad", "xbox", "a YAML file, or the name of one in config/joysticks"),
        NodeParameter(
            "next_button",
            "guide",
            "button of the pad that picks the next robot, and behind the last one whoever asks; empty: none",
        ),
    )

    @classmethod
    def parameters(cls) -> tuple[NodeParameter, ...]:
        """Everything that the node declares: it works under several contracts."""
        return (LOCKSTEP, *cls.PARAMETERS)

    def configure(self) -> None:
        """Checks contracts and pad."""
        names, paths = (
            [text.rstrip("/") for text in self.given["robots"] if text],
            [path for path in self.given["contracts"] if path],
        )
        if self.lockstep:
            raise DaggerError("operator_queue: expected lockstep false, since a person lives in real time; got true")
        if not names or len(set(names)) != len(names):
            raise DaggerError(
                f"robots: expected the namespace of each robot, each once; got {', '.join(names) or 'none'}"
            )
        if len(paths) != len(names):
            raise DaggerError(
                f"contracts: expected one for each of {', '.join(names)}; got {', '.join(paths) or 'none'}"
            )
        self._robots = [self._robot(name, path) for name, path in zip(names, paths, strict=True)]
        self._check_shared(paths)
        self._next = self._index_of_next()
        self._next_is_pressed = False
        # Who has the operator, who was picked by hand, and who waits, in the order in which they asked.
        self._assigned: _Robot | None = None
        self._picked: _Robot | None = None
        self._waiting: list[_Robot] = []
        self._body = self._pad.description
        self._trembles = self.create_publisher(JoyFeedback, "joy/set_feedback", ACT_QOS)
        self._assignments = self.create_publisher(String, "~/assigned", EVENT_QOS)
        for robot in self._robots:
            self._hear(robot)
        self.create_service(Trigger, "~/queue", partial(self._on_pick, None))
        self._subscription = self.create_subscription(Joy, "joy", self._on_joy, ACT_QOS)
        self._publish_assignment()

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Who has the operator and who waits."""
        now_ns = self.monotonic_ns()
        has = self._assigned.name if self._assigned else "nobody"
        waits = ", ".join(robot.name for robot in self._waiting if robot is not self._assigned)
        values: dict[str, object] = {"operator": has, "picked": self._picked is not None, "waits": waits}
        values |= {robot.name: robot.words(now_ns) for robot in self._robots}
        words = f"{has} has the operator{'; waits: ' + waits if waits else ''}"
        problem = next(filter(None, (robot.reader.problem(now_ns) for robot in self._robots)), "")
        return (LEVEL_WARN, f"{problem}; {words}", values) if problem else (LEVEL_OK, words, values)

    def _robot(self, name: str, path: str) -> _Robot:
        contract = load_contract(path)
        mapping, self._pad = mapped_pad(contract, path, self.given["pad"])
        reader = PadReader(self._pad, mapping, round(contract.timing.expert_max_age_s * 1e9))
        return _Robot(name, reader, mapping, self.create_publisher(Joy, f"{name}/joy", ACT_QOS))

    def _hear(self, robot: _Robot) -> None:
        name = robot.name
        self.create_subscription(
            GateDecision, f"{name}/supervisor/decision", partial(self._on_decision, robot), self.qos.record
        )
        self.create_subscription(HelpRequest, f"{name}/supervisor/help", partial(self._on_help, robot), EVENT_QOS)
        self.create_subscription(
            GateSettings, f"{name}/supervisor/settings", partial(self._on_settings, robot), EVENT_QOS
        )
        self.create_subscription(JoyFeedback, f"{name}/joy/set_feedback", self._trembles.publish, ACT_QOS)
        self.create_service(Trigger, f"~/pick/{name.strip('/').replace('/', '_')}", partial(self._on_pick, robot))

    def _check_shared(self, paths: Sequence[str]) -> None:
        """One hand is on the pad, so what stops has one place."""
        for act in _SHARED:
            first, *others = (getattr(robot.mapping, act) for robot in self._robots)
            if first is None:
                raise DaggerError(f"{paths[0]}: expert.joystick.{act}: expected a button of the pad; found none")
            for path, button in zip(paths[1:], others, strict=True):
                if button != first:
                    raise DaggerError(
                        f"{path}: expert.joystick.{act}: expected {first} as in {paths[0]}, since one pad is for every "
                        f"robot; found {button or 'none'}"
                    )

    def _index_of_next(self) -> int | None:
        name, pad = self.given["next_button"], self._pad
        if not name:
            return None
        free = sorted(
            button
            for button, place in pad.buttons.items()
            if place.index is not None and not any(button in r.mapping.buttons().values() for r in self._robots)
        )
        if name not in free:
            raise DaggerError(
                f"next_button: expected a button of the pad that no contract uses ({', '.join(free) or 'none'}), "
                f"got {name!r}"
            )
        return pad.buttons[name].index

    def _on_settings(self, robot: _Robot, message: Any) -> None:
        robot.asks_by_rule = message.rule in ROBOT_GATED and message.round > 0

    def _on_help(self, robot: _Robot, message: Any) -> None:
        robot.why = message.reason

    def _on_decision(self, robot: _Robot, message: Any) -> None:
        robot.mode, robot.asks, robot.decided_ns = Mode(message.mode), message.help, self.monotonic_ns()
        if robot.asks and robot not in self._waiting:
            self._waiting.append(robot)
        elif not robot.asks and robot in self._waiting:
            self._waiting.remove(robot)

    def _on_joy(self, message: Any) -> None:
        now_ns, stamp = self.monotonic_ns(), stamp_ns(message.header.stamp)
        delay_ns = self.robot_ns() - stamp if stamp else 0
        pads = self.count_publishers(self._subscription.topic_name)
        for robot in self._robots:
            if pads > 1:
                robot.reader.distrust(f"{pads} nodes published joy, where one is expected")
            robot.reader.receive(message.axes, message.buttons, stamp, now_ns, delay_ns=delay_ns)
        picks_next = self._begins_next(message)
        if all(robot.reader.at_rest and not robot.reader.problem(now_ns) for robot in self._robots):
            self._change_hands(now_ns, picks_next=picks_next)
        for robot in self._robots:
            if robot is self._assigned and pads <= 1:
                robot.pad.publish(message)
            elif robot.reader.estop_is_pressed(now_ns) or (robot.asks_by_rule and not robot.reader.problem(now_ns)):
                robot.pad.publish(_at_rest(message, self._pad, robot.mapping))

    def _begins_next(self, message: Any) -> bool:
        before = self._next_is_pressed
        self._next_is_pressed = bool(
            self._next is not None and self._next < len(message.buttons) and message.buttons[self._next]
        )
        return self._next_is_pressed and not before

    def _change_hands(self, now_ns: int, *, picks_next: bool) -> None:
        """Gives the operator to who is next, if that is somebody else."""
        self._waiting = [robot for robot in self._waiting if robot.is_heard(now_ns)]
        has = self._assigned
        if picks_next:
            place = 0 if has is None else self._robots.index(has) + 1
            wraps = self._picked is None
            self._picked = (self._robots * 2 if wraps else [*self._robots, None])[place]
        if self._picked is not None:
            self._assign(self._picked, "picked")
        elif self._waiting and (has is None or has.needs_nobody(now_ns)):
            self._assign(self._waiting[0], f"asks for help: {self._waiting[0].why}")

    def _assign(self, robot: _Robot, why: str) -> None:
        if robot is not self._assigned:
            self._assigned = robot
            self.get_logger().info(f"operator: robot={robot.name} reason={why}")
            self._publish_assignment()

    def _publish_assignment(self) -> None:
        self._assignments.publish(String(data=self._assigned.name if self._assigned else ""))

    def _on_pick(self, robot: _Robot | None, _request: Any, response: Any) -> Any:
        self._picked = robot
        response.success = True
        response.message = f"{robot.name if robot else 'whoever asks'} gets the operator when the pad is at rest"
        return response


def _at_rest(message: Any, pad: Pad, mapping: Joystick) -> Any:
    """The same message of a pad on which nothing is pressed or pushed but, where it is, the emergency stop."""
    axes, buttons = [0.0] * len(message.axes), [0] * len(message.buttons)
    for axis in pad.axes.values():
        if axis.index < len(axes):
            axes[axis.index] = axis.rest
    stop = pad.buttons[mapping.buttons()["estop"]]
    if stop.axis is not None:
        index = pad.axes[stop.axis].index
        axes[index : index + 1] = message.axes[index : index + 1]
    elif stop.index is not None:
        buttons[stop.index : stop.index + 1] = message.buttons[stop.index : stop.index + 1]
    return Joy(header=message.header, axes=axes, buttons=buttons)


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(OperatorQueueNode, args)


if __name__ == "__main__":
    main()
