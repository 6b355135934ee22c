"""Quality of a model from counts of its scores: additive counts, metrics, plots. Pure."""
