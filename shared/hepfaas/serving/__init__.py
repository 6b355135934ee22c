"""The HTTP and gRPC of `predict`: protocols, models in memory, limits, metrics."""
