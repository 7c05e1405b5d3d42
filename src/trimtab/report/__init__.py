"""One page from a run folder, and nothing but the run folder."""
