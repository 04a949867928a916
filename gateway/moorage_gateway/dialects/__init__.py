"""The protocols that the gateway speaks: from a body to tensors, and from tensors to a body.

Every dialect is pure. What they share is in `call`; which of them a path belongs to is in `paths`.
"""
