"""The catalogue of hyperparameters, the configuration and its layers. Imports no torch."""
