"""Bytes of a request become arrays: JSON, Arrow, Parquet, tensors, images, raw events."""
