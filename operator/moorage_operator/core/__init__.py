"""The decisions, pure: no client, no clock, no logger, no chance.

`desired` builds the Kubernetes objects of a ModelDeployment; `local` decides about processes on one
machine. Both start the same runtime with the same flags (`runtime_flags`).
"""
