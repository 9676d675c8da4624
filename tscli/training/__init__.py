"""What surrounds a training loop: the frame, setting a stage up, its teachers, its evaluations."""

from tscli.training.frame import Training
from tscli.training.state import State

__all__ = ["State", "Training"]
