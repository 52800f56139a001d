"""Why rollouts failed: each run again with one cause removed at a time."""
