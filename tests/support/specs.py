"""The one table of good and bad ModelDeployments, which every door is asked about.

`GOOD` holds whole specs that are let in. `BAD` holds, for each mistake, the spec and a part of
what the command line's door (`v1alpha1.load`) says: the field at fault, then words.
"""

from typing import Any

URI = "s3://models/fraud/3"
MODEL = {"uri": URI}


def deployment(spec: Any, name: Any = "fraud") -> dict[str, Any]:
    """Wrap a spec."""
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": spec,
    }


def _uri(uri: Any, **more: Any) -> dict[str, Any]:
    return {"model": {"uri": uri, **more}}


def _with(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, **more}


def _cpu(request: Any, limit: Any = None) -> dict[str, Any]:
    limits = {} if limit is None else {"limits": {"cpu": limit}}
    return _with(resources={"requests": {"cpu": request}, **limits})


GOOD: dict[str, Any] = {
    "a model and nothing else": {"model": MODEL},
    "a relative file": _uri("file:iris/model.onnx"),
    "a file with a letter beyond ASCII": _uri("file:/modèles/é.onnx"),
    "an address with a query": _uri("https://host:8443/a.onnx?token=x#part"),
    "every driver's scheme: gs": _uri("gs://bucket/model"),
    "every driver's scheme: az": _uri("az://container/model"),
    "every driver's scheme: sftp": _uri("sftp://host/model.onnx"),
    "every driver's scheme: hf": _uri("hf://owner/repo/model.onnx"),
    "the longest address": _uri("file:" + "a" * 2043),
    "a registry's address": _uri("models:/fraud/3"),
    "a registry's address and its version": _uri("models:/fraud/3", version="3"),
    "a registry's address with the longest names": _uri(f"models:/{'a' * 63}/{'9' * 63}"),
    "a version of its own": _uri(URI, version="2024-01.rc_1"),
    "the longest version": _uri(URI, version="v" * 63),
    "a checksum": _uri(URI, sha256="0123456789abcdef" * 4),
    "an endpoint with an underscore and capitals": _with(endpoint="Classifier_prod.v2"),
    "no replica": _with(replicas=0),
    "as many replicas as there may be": _with(replicas=1000),
    "a whole number written as a fraction": _with(replicas=2.0),
    "everything said": {
        "model": {"uri": URI, "version": "3", "sha256": "a" * 64},
        "endpoint": "classifier_prod",
        "replicas": 2,
        "runtime": {
            "batching": {"maxBatchSize": 32, "maxDelayMs": 2},
            "threads": {"intraOp": 4, "interOp": 2},
            "warmup": False,
        },
        "resources": {
            "requests": {"cpu": "500m", "memory": "1Gi"},
            "limits": {"cpu": 2, "memory": "2Gi"},
        },
        "logging": {"enabled": False, "samplePercent": 10},
        "stopped": True,
    },
    "empty sections": _with(runtime={}, resources={}, logging={}),
    "empty sections within sections": _with(
        runtime={"batching": {}, "threads": {}}, resources={"requests": {}, "limits": {}}
    ),
    "half a section": _with(runtime={"batching": {"maxBatchSize": 8}}),
    "the extremes of batching": _with(
        runtime={"batching": {"maxBatchSize": 65536, "maxDelayMs": 10000}}
    ),
    "no batching and no wait": _with(runtime={"batching": {"maxBatchSize": 1}}),
    "null for an optional text": _uri(URI, version=None, sha256=None),
    "null for a section": _with(runtime=None, resources=None, replicas=None, endpoint=None),
    "null within a section": _with(runtime={"threads": {"intraOp": None}}),
    "null for a quantity": _with(resources={"requests": {"cpu": None}}),
    "a request equal to its limit, spelled otherwise": _cpu("1000m", "1"),
    "a request equal to its limit, as number and text": _cpu(2, "2"),
    "a request in binary below a limit in decimal": _with(
        resources={"requests": {"memory": "1Gi"}, "limits": {"memory": "1.1G"}}
    ),
    "a request without a limit": _cpu("4"),
    "a limit without a request": _with(resources={"limits": {"memory": "1Gi"}}),
    "a limit of another resource": _with(
        resources={"requests": {"cpu": "8"}, "limits": {"memory": "1"}}
    ),
    "a quantity with an exponent": _cpu("1e3", "1E3"),
    "a quantity that ends with a point": _cpu("1.", "1"),
    "a quantity that starts with a point": _cpu(".5", "500m"),
    "a quantity of nano": _cpu("1n", "1u"),
    "a quantity of exa": _cpu("1E", "1Ei"),
    "quantities that differ beyond nano, which is rounded up": _cpu("0.2n", "0.1n"),
    "quantities that differ beyond what Kubernetes can count": _cpu("100E", "10E"),
    "the largest whole number": _cpu(2**53 - 1, 2**53 - 1),
    "a quantity of 64 characters": _cpu("1" + "0" * 63),
    "sixteen quantities": _with(
        resources={"limits": {f"example.com/r{at}": at for at in range(16)}}
    ),
    "no sample at all": _with(logging={"samplePercent": 0}),
}

BAD: dict[str, tuple[Any, str]] = {
    "no model": ({}, "spec.model: is required"),
    "a model that is a text": ({"model": URI}, "spec.model"),
    "a model without an address": ({"model": {}}, "spec.model.uri: is required"),
    "null for what is required": ({"model": None}, "spec.model: is required"),
    "null for the address": (_uri(None), "spec.model.uri: is required"),
    "an empty address": (_uri(""), "spec.model.uri: expected an address"),
    "a bare path": (_uri("/models/iris.onnx"), "spec.model.uri: expected an address"),
    "an unknown scheme": (_uri("ftp://host/model.onnx"), "spec.model.uri: expected an address"),
    "a scheme alone": (_uri("s3:"), "spec.model.uri: expected an address"),
    "a space in the address": (_uri("file:a b.onnx"), "spec.model.uri: expected an address"),
    "a newline after the address": (_uri("file:a.onnx\n"), "spec.model.uri: expected an address"),
    "an address that is too long": (_uri("file:" + "a" * 2044), "spec.model.uri"),
    "an address that is a number": (_uri(5), "spec.model.uri: expected a string"),
    "a registry's address without version": (_uri("models:/fraud"), "spec.model.uri"),
    "a registry's address with a host": (_uri("models://fraud/3"), "spec.model.uri"),
    "a registry's address with more": (_uri("models:/fraud/3/x"), "spec.model.uri"),
    "a registry's model ending in a dot": (_uri("models:/fraud./3"), "spec.model.uri"),
    "a registry's version ending in a dash": (_uri("models:/fraud/3-"), "spec.model.uri"),
    "a registry's model too long": (_uri(f"models:/{'a' * 64}/3"), "spec.model.uri"),
    "a registry's address and another version": (
        _uri("models:/fraud/3", version="13"),
        "spec.model: version must be the one that the models:/NAME/VERSION address names",
    ),
    "a version that is the end of the registry's": (
        _uri("models:/fraud/13", version="3"),
        "spec.model: version must be the one",
    ),
    "a version that is a number": (
        _uri(URI, version=3),
        "spec.model.version: expected a string; put it in quotes, got 3",
    ),
    "an empty version": (_uri(URI, version=""), "spec.model.version"),
    "a version with a slash": (_uri(URI, version="a/b"), "spec.model.version: expected letters"),
    "a version of dots": (_uri(URI, version=".."), "spec.model.version: expected letters"),
    "a version with a newline": (_uri(URI, version="3\n"), "spec.model.version"),
    "a version with a letter beyond ASCII": (_uri(URI, version="é"), "spec.model.version"),
    "a version with a digit beyond ASCII": (_uri(URI, version="٣"), "spec.model.version"),
    "a version that is too long": (_uri(URI, version="v" * 64), "spec.model.version"),
    "a checksum in capitals": (
        _uri(URI, sha256="A" * 64),
        "spec.model.sha256: expected 64 hexadecimal digits in lower case",
    ),
    "a checksum that is short": (_uri(URI, sha256="a" * 63), "spec.model.sha256"),
    "a checksum with a newline": (_uri(URI, sha256="a" * 64 + "\n"), "spec.model.sha256"),
    "an endpoint with a slash": (_with(endpoint="a/b"), "spec.endpoint"),
    "an endpoint that starts with a dash": (_with(endpoint="-a"), "spec.endpoint"),
    "replicas below zero": (_with(replicas=-1), "spec.replicas"),
    "too many replicas": (_with(replicas=1001), "spec.replicas"),
    "replicas in quotes": (_with(replicas="2"), "spec.replicas"),
    "half a replica": (_with(replicas=1.5), "spec.replicas"),
    "replicas that are true": (_with(replicas=True), "spec.replicas"),
    "an unknown field": (
        _with(replica=2),
        "spec.replica: is not a field of this resource; is it misspelt?",
    ),
    "an unknown field deep down": (
        _with(runtime={"batching": {"maxbatchsize": 2}}),
        "spec.runtime.batching.maxbatchsize: is not a field",
    ),
    "a field in snake case": (
        _with(logging={"sample_percent": 5}),
        "spec.logging.sample_percent: is not a field",
    ),
    "a section that is a list": (_with(runtime=[]), "spec.runtime"),
    "a section that is a text": (_with(resources="1Gi"), "spec.resources"),
    "a batch of none": (_with(runtime={"batching": {"maxBatchSize": 0}}), "maxBatchSize"),
    "a batch that is too large": (
        _with(runtime={"batching": {"maxBatchSize": 65537}}),
        "spec.runtime.batching.maxBatchSize",
    ),
    "a delay below zero": (_with(runtime={"batching": {"maxDelayMs": -1}}), "maxDelayMs"),
    "a delay that is too long": (_with(runtime={"batching": {"maxDelayMs": 10001}}), "maxDelayMs"),
    "a delay for a batch of one": (
        _with(runtime={"batching": {"maxBatchSize": 1, "maxDelayMs": 5}}),
        "spec.runtime.batching: maxDelayMs makes requests wait for a batch",
    ),
    "no thread": (_with(runtime={"threads": {"intraOp": 0}}), "spec.runtime.threads.intraOp"),
    "too many threads": (_with(runtime={"threads": {"interOp": 1025}}), "threads.interOp"),
    "a switch in quotes": (_with(runtime={"warmup": "yes"}), "spec.runtime.warmup"),
    "a switch that is a number": (_with(stopped=1), "spec.stopped"),
    "a request above its limit": (
        _cpu("2", "1"),
        "spec.resources: a request may not be above its limit",
    ),
    "a request above its limit in other units": (
        _with(resources={"requests": {"memory": "1Gi"}, "limits": {"memory": "1G"}}),
        "spec.resources: a request may not be above its limit",
    ),
    "a request above its limit by little": (_cpu("1001m", 1), "a request may not be above"),
    "a request above its limit in the thirtieth digit": (
        _cpu("1000000000.0000000000000000000000000001", "1000000000"),
        "a request may not be above its limit",
    ),
    "a quantity in words": (_cpu("one"), "spec.resources.requests.cpu: expected a quantity"),
    "a quantity with a space": (_cpu("1 Gi"), "spec.resources.requests.cpu: expected a quantity"),
    "a quantity with a newline": (_cpu("1\n"), "spec.resources.requests.cpu: expected a quantity"),
    "a quantity in digits beyond ASCII": (_cpu("٣"), "spec.resources.requests.cpu"),
    "a quantity with an unknown unit": (_cpu("1gb"), "spec.resources.requests.cpu"),
    "an empty quantity": (_cpu(""), "spec.resources.requests.cpu: expected a quantity"),
    "a quantity below zero": (_cpu("-1"), "spec.resources.requests.cpu: expected a quantity"),
    "a whole number below zero": (_cpu(-1), "spec.resources.requests.cpu: expected a quantity"),
    "a whole number beyond exact floats": (_cpu(2**53), "spec.resources.requests.cpu: expected"),
    "a quantity that is a fraction": (_cpu(0.5), "spec.resources.requests.cpu: expected"),
    "a quantity that is true": (_cpu(True), "spec.resources.requests.cpu: expected a quantity"),
    "a quantity that is a list": (_cpu([1]), "spec.resources.requests.cpu: expected a quantity"),
    "a quantity with a monstrous exponent": (
        _cpu("1e99999999999999999999", "1"),
        "spec.resources.requests.cpu: expected a quantity",
    ),
    "a quantity of 65 characters": (_cpu("1" * 65), "at most 64 characters"),
    "seventeen quantities": (
        _with(resources={"limits": {f"example.com/r{at}": at for at in range(17)}}),
        "spec.resources.limits",
    ),
    "a sample above all": (_with(logging={"samplePercent": 101}), "spec.logging.samplePercent"),
    "a sample below none": (_with(logging={"samplePercent": -1}), "spec.logging.samplePercent"),
}

GOOD_NAMES: dict[str, str] = {
    "one letter": "a",
    "letters, digits and dashes": "a-1--b",
    "the longest": "a" * 63,
}
BAD_NAMES: dict[str, Any] = {
    "empty": "",
    "a digit first": "1a",
    "a capital": "Fraud",
    "an underscore": "a_b",
    "a dot": "a.b",
    "a dash last": "a-",
    "a newline last": "a\n",
    "too long": "a" * 64,
}
