"""The process that runs the user's model code, and its client."""
