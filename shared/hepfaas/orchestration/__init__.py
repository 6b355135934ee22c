"""Runs as CloudEvents drive them: records, submitting, advancing, performing steps, rules for arriving files."""
