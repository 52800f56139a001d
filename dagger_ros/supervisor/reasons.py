"""Why the supervisor did what it did, as bits that go out with every decision, and what each bit leads to."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["ABOUT", "INPUT_BITS", "About", "Reason", "Response", "response_bits"]


class Response(enum.IntEnum):
    """What a reason leads to; of several reasons the most restrictive response wins."""

    NOTE = 0
    """It is recorded."""
    LIMIT = 1
    """The action is changed before it goes out."""
    HOLD_EXPERT = 2
    """The expert does not drive."""
    HOLD_POLICY = 3
    """The policy does not drive."""
    HOLD = 4
    """Nobody drives."""
    LOCK = 5
    """Nobody drives, and a person must arm again."""
    ESTOP = 6
    """Latched until a person resets it, which is refused while the cause persists."""


class Reason(enum.IntFlag):
    """One bit for each thing that the supervisor objected to or did; 0: nothing. `ABOUT` explains each."""

    OBSERVATION_NEVER = enum.auto()
    OBSERVATION_STALE = enum.auto()
    OBSERVATION_FUTURE = enum.auto()
    OBSERVATION_SIZE = enum.auto()
    OBSERVATION_NOT_FINITE = enum.auto()
    OBSERVATION_OUT_OF_ORDER = enum.auto()
    OBSERVATION_DUPLICATE = enum.auto()
    OBSERVATION_GAP = enum.auto()
    OBSERVATION_SEQUENCE = enum.auto()
    POLICY_NEVER = enum.auto()
    POLICY_STALE = enum.auto()
    POLICY_FUTURE = enum.auto()
    POLICY_SIZE = enum.auto()
    POLICY_NOT_FINITE = enum.auto()
    POLICY_CONTRACT = enum.auto()
    POLICY_HASH = enum.auto()
    POLICY_OUT_OF_ORDER = enum.auto()
    POLICY_DUPLICATE = enum.auto()
    POLICY_GAP = enum.auto()
    POLICY_SEQUENCE = enum.auto()
    POLICY_JUMP = enum.auto()
    POLICY_LATE = enum.auto()
    POLICY_DOUBT = enum.auto()
    HELP_UNANSWERED = enum.auto()
    EXPERT_NEVER = enum.auto()
    EXPERT_STALE = enum.auto()
    EXPERT_FUTURE = enum.auto()
    EXPERT_SIZE = enum.auto()
    EXPERT_NOT_FINITE = enum.auto()
    EXPERT_CONTRACT = enum.auto()
    EXPERT_OUT_OF_ORDER = enum.auto()
    EXPERT_DUPLICATE = enum.auto()
    EXPERT_GAP = enum.auto()
    EXPERT_SEQUENCE = enum.auto()
    EXPERT_JUMP = enum.auto()
    EXPERT_FLAPPING = enum.auto()
    CLOCK_JUMP = enum.auto()
    TRACKING = enum.auto()
    WORKSPACE = enum.auto()
    ESTOP_STALE = enum.auto()
    RECORDER_STALE = enum.auto()
    ESTOP_PRESSED = enum.auto()
    SECOND_WRITER = enum.auto()
    MISSED_TICKS = enum.auto()
    NOT_ARMED = enum.auto()
    HELD = enum.auto()
    ESTOP = enum.auto()
    CLAMPED_BOUND = enum.auto()
    CLAMPED_RATE = enum.auto()
    CLAMPED_ACCELERATION = enum.auto()
    CLAMPED_JERK = enum.auto()
    JERK_EXCEEDED = enum.auto()
    HANDOVER = enum.auto()
    START_OUT_OF_BOUNDS = enum.auto()
    OUTPUT_NOT_FINITE = enum.auto()

    def words(self) -> str:
        """Names of the bits that are set, as in `POLICY_STALE|HELD`; empty for none."""
        value = int(self)
        return "|".join(name for bit, name in _NAMES if bit & value)

    def sentences(self) -> str:
        """What the bits that are set say to a person; empty for none."""
        return "; ".join(ABOUT[bit].words for bit in Reason if bit & self)


# Plain numbers: a decision says its reasons at every tick, and operations on flags are 20 times as slow.
_NAMES = tuple((int(bit), str(bit.name)) for bit in Reason)


class About(NamedTuple):
    """What a reason leads to, and what it says to a person."""

    response: Response
    words: str


ABOUT: Mapping[Reason, About] = {
    Reason.OBSERVATION_NEVER: About(Response.LOCK, "a stream of the contract was never received"),
    Reason.OBSERVATION_STALE: About(
        Response.LOCK,
        "a stream is older than its `max_age_s`, by header stamp or by time of receipt",
    ),
    Reason.OBSERVATION_FUTURE: About(
        Response.LOCK,
        "a header stamp is ahead of the clock by more than `future_tolerance_s`",
    ),
    Reason.OBSERVATION_SIZE: About(Response.LOCK, "a message lacked a field that the contract selects"),
    Reason.OBSERVATION_NOT_FINITE: About(Response.LOCK, "a selected value is NaN or infinite"),
    Reason.OBSERVATION_OUT_OF_ORDER: About(
        Response.NOTE,
        "a message with an older stamp than the last one; it was left out",
    ),
    Reason.OBSERVATION_DUPLICATE: About(
        Response.NOTE,
        "a message with the stamp of the last one; it was left out and made nothing fresher",
    ),
    Reason.OBSERVATION_GAP: About(Response.NOTE, "a stream skipped at least one period"),
    Reason.OBSERVATION_SEQUENCE: About(Response.LOCK, "a stream keeps coming out of order or twice"),
    Reason.POLICY_NEVER: About(Response.HOLD_POLICY, "the policy never proposed anything"),
    Reason.POLICY_STALE: About(
        Response.HOLD_POLICY,
        "the proposal is older than `policy_max_age_s`, or computed from an observation that is too old",
    ),
    Reason.POLICY_FUTURE: About(
        Response.HOLD_POLICY,
        "the proposal's stamp is ahead of the clock by more than `future_tolerance_s`",
    ),
    Reason.POLICY_SIZE: About(Response.HOLD_POLICY, "the proposal has not one number for each dimension of the action"),
    Reason.POLICY_NOT_FINITE: About(Response.HOLD_POLICY, "a number of the proposal is NaN or infinite"),
    Reason.POLICY_CONTRACT: About(Response.HOLD_POLICY, "the policy works under another contract"),
    Reason.POLICY_HASH: About(
        Response.HOLD_POLICY,
        "not the weights that are allowed here, or that control was given to",
    ),
    Reason.POLICY_OUT_OF_ORDER: About(
        Response.NOTE,
        "a proposal with a smaller sequence number than the last one; it was left out",
    ),
    Reason.POLICY_DUPLICATE: About(
        Response.NOTE,
        "a proposal that had come before; it was left out and made nothing fresher",
    ),
    Reason.POLICY_GAP: About(Response.NOTE, "proposals were lost on the way"),
    Reason.POLICY_SEQUENCE: About(
        Response.HOLD_POLICY,
        "proposals keep getting lost, coming out of order or twice; or two nodes propose",
    ),
    Reason.POLICY_JUMP: About(
        Response.HOLD_POLICY,
        "the proposal is further than `jump_limit` from the last emitted command: wrong unit, frame or order?",
    ),
    Reason.POLICY_LATE: About(Response.HOLD_POLICY, "the policy keeps answering later than `latency_budget_s`"),
    Reason.POLICY_DOUBT: About(
        Response.HOLD_POLICY,
        "the policy doubts its proposal more than the rule allows, or does not know how much",
    ),
    Reason.HELP_UNANSWERED: About(
        Response.HOLD_POLICY,
        "the rule asked for help, and nobody took over or let the policy go on within `help_answer_s`",
    ),
    Reason.EXPERT_NEVER: About(Response.HOLD_EXPERT, "the expert node never said anything"),
    Reason.EXPERT_STALE: About(
        Response.HOLD_EXPERT,
        "the expert node was last heard longer ago than `expert_max_age_s`: cable, battery, deadman?",
    ),
    Reason.EXPERT_FUTURE: About(
        Response.HOLD_EXPERT,
        "the stamp of the expert's action is ahead of the clock by more than `future_tolerance_s`",
    ),
    Reason.EXPERT_SIZE: About(
        Response.HOLD_EXPERT,
        "the expert's action has not one number for each dimension of the action",
    ),
    Reason.EXPERT_NOT_FINITE: About(
        Response.HOLD_EXPERT, "a number of the expert's action is NaN or infinite: a pad that is not believed?"
    ),
    Reason.EXPERT_CONTRACT: About(Response.HOLD_EXPERT, "the expert node works under another contract"),
    Reason.EXPERT_OUT_OF_ORDER: About(
        Response.NOTE,
        "an expert's action with a smaller sequence number than the last one; it was left out",
    ),
    Reason.EXPERT_DUPLICATE: About(
        Response.NOTE,
        "an expert's action that had come before; it was left out and made nothing fresher",
    ),
    Reason.EXPERT_GAP: About(Response.NOTE, "actions of the expert were lost on the way"),
    Reason.EXPERT_SEQUENCE: About(
        Response.HOLD_EXPERT,
        "actions of the expert keep getting lost, coming out of order or twice; or two nodes send them",
    ),
    Reason.EXPERT_JUMP: About(
        Response.HOLD_EXPERT,
        "the expert's action is further than `jump_limit` from the last emitted command",
    ),
    Reason.EXPERT_FLAPPING: About(
        Response.HOLD,
        "the deadman goes on and off faster than a hand does: a loose contact?",
    ),
    Reason.CLOCK_JUMP: About(
        Response.LOCK,
        "the robot's clock went back, or further forward than time passed: a reset simulation, a clock that was set?",
    ),
    Reason.TRACKING: About(
        Response.HOLD,
        "the robot is further than `tracking_limit` from the last emitted command: blocked, or moved by hand?",
    ),
    Reason.WORKSPACE: About(Response.HOLD_POLICY, "a stream is outside its box of the contract's `workspace`"),
    Reason.ESTOP_STALE: About(Response.LOCK, "the topic estop was not heard for `estop_max_age_s`: unplugged?"),
    Reason.RECORDER_STALE: About(
        Response.HOLD,
        "an episode is under way and the aggregator was not heard of: nothing may be recorded",
    ),
    Reason.ESTOP_PRESSED: About(Response.ESTOP, "the topic estop says stop"),
    Reason.SECOND_WRITER: About(Response.ESTOP, "somebody else publishes on the command topic"),
    Reason.MISSED_TICKS: About(Response.NOTE, "the supervisor was late by at least one whole period before this tick"),
    Reason.NOT_ARMED: About(Response.NOTE, "locked: waits for a person to arm"),
    Reason.HELD: About(Response.NOTE, "armed, but nobody drives"),
    Reason.ESTOP: About(Response.NOTE, "the emergency stop is latched"),
    Reason.CLAMPED_BOUND: About(Response.LIMIT, "the requested action was outside the contract's bounds"),
    Reason.CLAMPED_RATE: About(
        Response.LIMIT,
        "the requested action was further from the last one than velocity, acceleration or rate limit allow",
    ),
    Reason.CLAMPED_ACCELERATION: About(
        Response.LIMIT,
        "positions: the requested action needed more acceleration, or left less room to stop, than there is",
    ),
    Reason.CLAMPED_JERK: About(Response.LIMIT, "the requested action needed more than `jerk_limit`"),
    Reason.JERK_EXCEEDED: About(Response.NOTE, "a stop or a tighter limit needed more than `jerk_limit`"),
    Reason.HANDOVER: About(Response.LIMIT, "a new driver is being eased in under stricter limits; never a label"),
    Reason.START_OUT_OF_BOUNDS: About(
        Response.LIMIT,
        "what motion would start from lies outside the contract's bounds; nothing goes out until it does not",
    ),
    Reason.OUTPUT_NOT_FINITE: About(
        Response.LIMIT,
        "last check: what would have gone out was not finite, and nothing went out",
    ),
}


def response_bits(*responses: Response) -> int:
    """Every reason that leads to one of these responses, as a mask."""
    return sum(int(reason) for reason, about in ABOUT.items() if about.response in responses)


# What is known before the gate decides, because it shows in how messages came and not in the row. A recorded row
# is decided again from its inputs and these.
INPUT_BITS = int(
    Reason.OBSERVATION_SIZE
    | Reason.OBSERVATION_OUT_OF_ORDER
    | Reason.OBSERVATION_DUPLICATE
    | Reason.OBSERVATION_GAP
    | Reason.OBSERVATION_SEQUENCE
    | Reason.POLICY_SIZE
    | Reason.POLICY_CONTRACT
    | Reason.POLICY_OUT_OF_ORDER
    | Reason.POLICY_DUPLICATE
    | Reason.POLICY_GAP
    | Reason.POLICY_SEQUENCE
    | Reason.EXPERT_SIZE
    | Reason.EXPERT_CONTRACT
    | Reason.EXPERT_OUT_OF_ORDER
    | Reason.EXPERT_DUPLICATE
    | Reason.EXPERT_GAP
    | Reason.EXPERT_SEQUENCE
    | Reason.ESTOP_STALE
    | Reason.ESTOP_PRESSED
    | Reason.RECORDER_STALE
    | Reason.SECOND_WRITER
    | Reason.MISSED_TICKS
)
