"""`python -m credit_risk.cli`, where the program itself is not installed."""

from credit_risk.cli import main

main()
