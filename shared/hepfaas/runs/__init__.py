"""The values of a run: recipe, steps and their hashes, what comes next, ledger. Pure; imports no other room."""
