"""What the store says of runs and models, for the command line and the HTTP calls. Reads only."""
