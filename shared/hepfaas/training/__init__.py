"""From matrix to weights, pure: split, segments, prepared batches, checkpoints, metrics, plots."""
