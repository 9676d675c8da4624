"""What a terminal shows: progress, tables and plots."""
