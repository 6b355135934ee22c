"""From jagged arrays to a matrix: branch ranges, spec, matrix. Pure."""
