"""Training without a framework, pure: split, segments, prepared batches, checkpoints."""
