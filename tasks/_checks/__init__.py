"""What judges a candidate: each check finds evidence and gives a verdict of three values."""
