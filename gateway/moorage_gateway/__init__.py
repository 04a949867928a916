"""One address in front of many models: routes, validates, remembers.

It makes one decision (which runtime answers) and one promise: a prediction that was answered is
remembered, and remembering never makes one fail. It computes no model.
"""
