"""What people look at: pages of runs and comparisons, charts, recorded episodes."""
