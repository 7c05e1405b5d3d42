"""One question each; the answers are facts."""
