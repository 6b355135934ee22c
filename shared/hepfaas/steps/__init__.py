"""What a step of each kind does: `perform(step, store, ...)`, one module a kind."""
