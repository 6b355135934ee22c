"""The HTTP of `runs` and `intake`, one module a resource."""
