"""Which events: lists of files, opening ROOT files, entry ranges, how files are read for an owner."""
