"""hepfaas: machine learning on ROOT files as stateless serverless functions."""

__version__ = "0.1.0"
