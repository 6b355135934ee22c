"""The HTTP APIs of `runs` and `intake`, one module per resource."""
