"""From words to a running stage: scripts found, their settings layered, one of them started, or a pipeline of them."""
