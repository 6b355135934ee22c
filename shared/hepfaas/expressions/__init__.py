"""Expressions over the branches of events: cuts, new branches, weights, labels. Parsed once, evaluated on arrays. Pure."""
