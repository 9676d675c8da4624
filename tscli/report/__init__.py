"""What people look at: the figures of an evaluation."""
