"""Environments: the contract, spaces and views, one file for each kind of env, and beside them what these are made of.

The small ones are in `classic`; they and the colour maze share `native`.
"""

from tscli.envs.contract import EnvStep, VecEnv, env_kinds, make_env
from tscli.envs.spaces import ActionSpec, Group

__all__ = ["ActionSpec", "EnvStep", "Group", "VecEnv", "env_kinds", "make_env"]
