"""What runs, in order: one deployable flow a file, and the command line.

No class and no exception is defined here, because a deployment loads these files under another name than an
import does, and so would have two of each.
"""
