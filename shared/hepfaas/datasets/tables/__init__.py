"""Files of events that are tables: Parquet, Avro, JSON lines and CSV, each read by a module behind one interface.

Runs in a confined worker (worker.py). A row is an event, and a column of numbers or of lists of numbers a branch.
"""
