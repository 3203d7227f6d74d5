"""The command line ``slipway``: a thin shell over the flows and the embedded stack."""

from flows.cli.main import main

__all__ = ["main"]
