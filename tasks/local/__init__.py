"""The one-machine stack of real parts, and the two environments that it runs in."""
