"""Confined processes for native code on hostile bytes: graphs, ROOT, Arrow, Parquet, pictures."""
