"""hepfaas: machine learning on ROOT files as stateless serverless functions."""

import importlib

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Client and AsyncClient, imported when asked for: no function needs them."""
    if name in ("Client", "AsyncClient"):
        return getattr(importlib.import_module("hepfaas.client"), name)
    raise AttributeError(f"module 'hepfaas' has no attribute {name!r}")
