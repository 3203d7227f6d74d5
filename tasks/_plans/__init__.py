"""What a release would do, worked out before anything moves."""
