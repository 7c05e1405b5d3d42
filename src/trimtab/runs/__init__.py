"""The run folder: layout, ledgers, manifests, atomic writes. Imports no torch."""
