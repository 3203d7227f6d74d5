"""The webhook receiver, free of Prefect: who may call, what a call says, whom it concerns, and how much is borne.

A call is a hint that a ref may have moved.  It can start the flow that would look anyway, sooner; it can say neither
which commit is released nor how.
"""
