"""From the bytes of a request to arrays: JSON, Arrow, Parquet, tensors, images, raw events."""
