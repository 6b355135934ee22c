"""Input events: lists of files, ROOT files, entry ranges, and how the files of an owner are read."""
