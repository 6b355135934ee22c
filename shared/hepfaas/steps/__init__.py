"""The kinds of steps, one module each with `perform(step, store, ...)`; performing.py leads to them."""
