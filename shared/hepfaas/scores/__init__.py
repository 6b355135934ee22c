"""Score files: writing, streaming and adding up the parts."""
