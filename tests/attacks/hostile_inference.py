"""The inference worker of `hostile_workers`, as a program."""

from attacks.hostile_workers import serve_inference as serve

__all__ = ["serve"]
