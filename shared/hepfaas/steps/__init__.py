"""Each kind of step: `perform(step, store, ...)`, one module a kind."""
