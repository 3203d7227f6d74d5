"""What commonly is wrong around Slipway: one check each, that looks and says what it found; free of Prefect."""
