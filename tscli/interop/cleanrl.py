"""cleanrl: the actors that its single files save."""

from tscli.interop.weights import Layout

LAYOUTS = (
    # That of PPO on discrete actions is called as in rsl_rl 3.
    Layout("cleanrl PPO", ("actor_mean",), log_std=("actor_logstd",)),
    # SAC's log deviation goes through a tanh there, which ours does not.
    Layout("cleanrl SAC", ("fc1", "fc2", "fc_mean"), squash=True, others=("fc_logstd.",)),
    Layout("cleanrl TD3 or DDPG", ("fc1", "fc2", "fc_mu"), squash=True),
    Layout("cleanrl DQN", ("network",)),
)
