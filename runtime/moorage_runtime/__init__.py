"""Serves one ONNX model over the Open Inference Protocol: tensors in, tensors out.

It knows nothing of Kubernetes, routing or logging of predictions.
"""
