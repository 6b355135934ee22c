"""Views of runs and models in the store, for the command line and the HTTP APIs. Read-only."""
