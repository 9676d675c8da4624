"""Pictures: curves of metrics, films of episodes, maps of where policies go."""
