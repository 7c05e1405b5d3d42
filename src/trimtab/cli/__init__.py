"""Words and screens; everything they say comes from the Python functions."""
