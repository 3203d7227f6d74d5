"""What a Prefect server should hold for Slipway, and how that differs from what it holds; free of Prefect."""
