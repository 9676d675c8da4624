"""What a configuration is: pydantic models that scripts, tasks and networks share, and the errors that a user sees.

This room is imported to build `--help`, so it needs the standard library and pydantic alone.
"""

# First what the files of bodies take from here while `network` reads their settings.
from tscli.config.base import (
    Config,
    UserError,
    did_you_mean,
    is_yaml,
    merge_nested,
    one_line,
    positional,
)
from tscli.config.bodies import ConvolutionsConfig, HistoryConfig, LayersConfig, MemoryConfig
from tscli.config.network import Network, NetworkConfig
from tscli.config.stages import (
    DistillConfig,
    Encoder,
    EvalEvery,
    Falling,
    History,
    JointConfig,
    LatentConfig,
    LatentSize,
    LearningRate,
    NumEnvs,
    NumMinibatches,
    Patience,
    PenaltyConfig,
    PPOConfig,
    RandomStart,
    RolloutConfig,
    RolloutSteps,
    Share,
    StageConfig,
    Steps,
    StudentConfig,
    TrainingConfig,
    WindowsConfig,
)
from tscli.config.views import ViewPart, parse_view

__all__ = [
    "Config",
    "ConvolutionsConfig",
    "DistillConfig",
    "Encoder",
    "EvalEvery",
    "Falling",
    "History",
    "HistoryConfig",
    "JointConfig",
    "LatentConfig",
    "LatentSize",
    "LayersConfig",
    "LearningRate",
    "MemoryConfig",
    "Network",
    "NetworkConfig",
    "NumEnvs",
    "NumMinibatches",
    "PPOConfig",
    "Patience",
    "PenaltyConfig",
    "RandomStart",
    "RolloutConfig",
    "RolloutSteps",
    "Share",
    "StageConfig",
    "Steps",
    "StudentConfig",
    "TrainingConfig",
    "UserError",
    "ViewPart",
    "WindowsConfig",
    "did_you_mean",
    "is_yaml",
    "merge_nested",
    "one_line",
    "parse_view",
    "positional",
]
