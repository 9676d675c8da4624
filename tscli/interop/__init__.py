"""What others can read, and what is read of others: policies, environments and datasets, one file for each format."""
