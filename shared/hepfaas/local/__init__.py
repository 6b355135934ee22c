"""The embedded system: a run on one machine in worker processes, without any server."""
