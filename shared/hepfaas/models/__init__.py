"""Published versions and their inference: card, graph check, confined workers, batches."""
