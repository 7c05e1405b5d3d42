"""Other tools: their configurations in and out, results in the formats that they load."""
