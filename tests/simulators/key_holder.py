"""A worker's settings where nothing is served: enough to hold keys and make bindings."""

from enclave_worker.worker_config import WorkerConfig
from wire.ids import sha256_tag

DIGEST = sha256_tag(b"x")


def key_holder() -> WorkerConfig:
    """Settings of a worker of deployment `tests` with a model `m` that is nowhere."""
    return WorkerConfig(
        wid="w",
        aud="tests",
        model_name="m",
        model_dir="/model",
        service_policy=b"{}",
        image=DIGEST,
        model_digests={"tree": DIGEST, "weights": DIGEST},
    )
