"""The payload: what runs inside Ray.  It imports nothing of the rest of Slipway, and nothing imports it."""
