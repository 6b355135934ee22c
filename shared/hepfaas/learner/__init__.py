"""The learner process, which runs the user's model code, and its client."""
