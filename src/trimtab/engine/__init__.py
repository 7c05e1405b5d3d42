"""One weight update, and the order of many."""
