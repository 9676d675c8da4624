"""From words to a running stage: scripts found, settings layered, a stage or a pipeline of them started."""
