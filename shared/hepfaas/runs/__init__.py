"""What a run is: recipe, steps and their hashes, what comes next, ledger. Values only; imports no other room."""
