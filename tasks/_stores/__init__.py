"""Where weights and records live: one protocol, and the kinds of store behind it."""
