"""Environments: the contract, spaces and views, and one file for each kind of env, the small ones in `classic`."""

from tscli.envs.contract import EnvStep, VecEnv, env_kinds, make_env
from tscli.envs.spaces import ActionSpec, Group

__all__ = ["ActionSpec", "EnvStep", "Group", "VecEnv", "env_kinds", "make_env"]
