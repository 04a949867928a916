"""The HTTP shell that the runtime and the gateway have in common.

Bodies in with limits, answers out in one write, errors to statuses, logs and request metrics. It
knows nothing of models, routing or predictions.
"""
