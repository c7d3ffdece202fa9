"""`python -m infra.cli` is `millrace`."""

from infra.cli import main

main()
