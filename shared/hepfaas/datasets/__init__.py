"""Which events: lists of files, opening ROOT files, entry ranges."""
