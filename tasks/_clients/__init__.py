"""Slipway as a client of a service: asks, reads to the end, keeps watch, and counts what it saw."""
