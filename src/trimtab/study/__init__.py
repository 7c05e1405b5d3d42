"""Does a setting matter here? A paired experiment with a verdict."""
