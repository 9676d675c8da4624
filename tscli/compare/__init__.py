"""`tscli compare`: methods x seeds on a task, cell by cell, and what is made of their figures."""
