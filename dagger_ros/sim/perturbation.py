"""What can be made worse about a plant, as data, so that a perturbed rollout is a setting."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dagger_ros.contract import DaggerError

__all__ = ["Perturbation"]


@dataclass(frozen=True)
class Perturbation:
    """Settings that change what is observed, how the actuators follow, and where an episode begins.

    The default changes nothing. Streams that only the expert sees are never touched.

    Args:
        observation_delay_s: Messages come this much after what they show.
        observation_drop: Probability that a message is lost.
        observation_noise: Standard deviation of added noise, as a multiple of each stream's resolution.
        observation_bias: Constant for an episode, drawn with this standard deviation in resolutions.
        observation_streams: Streams that noise and bias apply to; empty: every one that a policy sees.
        camera_shift: What sees the world (`Contract.perception`) has moved so many of its stream's resolutions since
            it was calibrated, in a direction drawn for each episode: positions are off by it, a range finder looks
            from there.
        action_delay_s: Commands act this much later.
        actuator_lag_s: Added to the time constant of the actuators' lag.
        actuator_gain: What an actuator does of what it is told.
        actuator_limit: Share of the action's bounds, about their middle, beyond which an actuator does not go.
        friction: Factor on the friction of every contact and joint.
        payload_kg: Added to the body that the actuators move.
        start_spread: Factor on the range of initial states.
    """

    observation_delay_s: float = 0.0
    observation_drop: float = 0.0
    observation_noise: float = 0.0
    observation_bias: float = 0.0
    observation_streams: tuple[str, ...] = ()
    camera_shift: float = 0.0
    action_delay_s: float = 0.0
    actuator_lag_s: float = 0.0
    actuator_gain: float = 1.0
    actuator_limit: float = 1.0
    friction: float = 1.0
    payload_kg: float = 0.0
    start_spread: float = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "observation_streams":
                if isinstance(value, str) or not all(isinstance(name, str) for name in value):
                    raise DaggerError(f"perturbation {item.name}: expected a list of names of streams, got {value!r}")
                object.__setattr__(self, item.name, tuple(value))
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise DaggerError(f"perturbation {item.name}: expected a number >= 0, got {value}")
        for name in ("observation_drop", "actuator_limit"):
            if getattr(self, name) > 1:
                raise DaggerError(f"perturbation {name}: expected a share up to 1, got {getattr(self, name)}")
