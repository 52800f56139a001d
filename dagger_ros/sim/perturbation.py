"""What can be made worse about a plant, as data, so that a perturbed rollout is a setting."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dagger_ros.contract import DaggerError

__all__ = ["Perturbation"]


@dataclass(frozen=True)
class Perturbation:
    """Settings that change what is observed and how the actuators follow. The default changes nothing.

    Streams that only the expert sees are never touched.

    Args:
        observation_delay_s: Messages come this much after what they show.
        observation_drop: Probability that a message is lost.
        observation_noise: Standard deviation of added noise, as a multiple of each stream's resolution.
        observation_bias: Constant for an episode, drawn with this standard deviation in resolutions.
        action_delay_s: Commands act this much later.
        actuator_lag_s: Added to the time constant of the actuators' lag.
        actuator_gain: What an actuator does of what it is told.
        friction: Factor on the friction of every contact and joint.
    """

    observation_delay_s: float = 0.0
    observation_drop: float = 0.0
    observation_noise: float = 0.0
    observation_bias: float = 0.0
    action_delay_s: float = 0.0
    actuator_lag_s: float = 0.0
    actuator_gain: float = 1.0
    friction: float = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0 <= value < float("inf"):
                raise DaggerError(f"perturbation {item.name}: expected a number >= 0, got {value}")
        if self.observation_drop > 1:
            raise DaggerError(f"perturbation observation_drop: expected a share up to 1, got {self.observation_drop}")
