"""What events drive: records of runs, submitting, advancing, performing steps, rules for arriving files."""
