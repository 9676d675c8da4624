"""Mathematics with one right answer, and the rollouts and batches that it works on."""
