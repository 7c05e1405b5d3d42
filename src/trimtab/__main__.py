"""`python -m trimtab` is the command `trimtab`."""

from trimtab.cli.entry import main

main()
