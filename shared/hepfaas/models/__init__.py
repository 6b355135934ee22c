"""Model versions and answering with them: card, runtime, predictions."""
