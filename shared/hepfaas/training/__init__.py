"""From matrix to weights: split, segments, the learner process, checkpoints, metrics, plots."""
