"""The flags of a runtime for a ModelDeployment: the same in a pod and in a local process."""

import math

from moorage_api.v1alpha1 import ModelDeployment, parse_quantity


def build(resource: ModelDeployment) -> list[str]:
    """Return the flags that say what is served and how, without addresses and ports."""
    spec = resource.spec
    batching, threads = spec.runtime.batching, spec.runtime.threads
    flags = {
        "--model": spec.model.uri,
        "--name": resource.metadata.name,
        "--version": resource.model_version,
        "--max-batch-size": batching.max_batch_size,
        "--max-delay-ms": batching.max_delay_ms,
        "--inter-op-threads": threads.inter_op,
    }
    if spec.model.sha256 is not None:
        flags["--sha256"] = spec.model.sha256
    intra_op = threads.intra_op or _cpus(resource)
    if intra_op:
        flags["--intra-op-threads"] = intra_op
    words = [word for flag, value in flags.items() for word in (flag, str(value))]
    return words if spec.runtime.warmup else [*words, "--no-warmup"]


def _cpus(resource: ModelDeployment) -> int:
    """Return the CPU limit in whole CPUs, rounded up; 0 where there is none."""
    limit = resource.spec.resources.limits.get("cpu")
    return 0 if limit is None else max(1, math.ceil(parse_quantity(limit)))
