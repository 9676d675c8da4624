"""`tscli compare`: methods x seeds on a task, planned, run cell by cell, and put side by side."""
