"""Confined processes for native code that reads hostile bytes: graphs, ROOT, Arrow, Parquet, images."""
