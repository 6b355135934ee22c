"""The edge of hepfaas: stores, settings, identity, HTTP."""
