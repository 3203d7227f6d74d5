"""A Hugging Face Hub for one machine: repositories on disk, served so that huggingface_hub needs no change.

Its purpose is that the release path can be walked, and broken, without the internet.  It keeps what the real
Hub promises and clients lean on: git and LFS identities, immutable commits, refs that move, file bytes from a
second host by signed links that expire, ranges, gated and private repositories, errors told apart by header.
"""
