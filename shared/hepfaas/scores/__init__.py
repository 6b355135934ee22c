"""Scores as files, as stored parts, and as streams."""
