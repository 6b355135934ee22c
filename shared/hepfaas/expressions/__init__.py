"""Expressions over branches: cuts, new branches, weights, labels. Parsed once, evaluated on arrays. Pure."""
