"""hepfaas: machine learning on ROOT files as stateless serverless functions."""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]

if TYPE_CHECKING:
    from hepfaas.client import AsyncClient, Client
else:

    def __getattr__(name):
        """Import Client and AsyncClient on first use: the functions do not need them."""
        if name in ("Client", "AsyncClient"):
            return getattr(importlib.import_module("hepfaas.client"), name)
        raise AttributeError(f"module 'hepfaas' has no attribute {name!r}")
