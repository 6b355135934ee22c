"""predict-grpc: scores of published models, by gRPC: the Open Inference Protocol, version 2.

It is a function of its own because Knative gives a Service one port. functions-framework does not speak gRPC, so it
listens on $PORT (h2c) itself, until SIGTERM. Metrics for Prometheus are at /metrics of HEPFAAS_METRICS_PORT.

docs/reference/predict.md has the calls; the metadata 'authorization' has a bearer token (docs/reference/identity.md).
Answers OK; UNAUTHENTICATED; PERMISSION_DENIED; NOT_FOUND if it does not exist or belongs to another owner;
INVALID_ARGUMENT if the request must change; RESOURCE_EXHAUSTED and UNAVAILABLE to try again.
"""

import asyncio
import os

from hepfaas.sandbox import confinement
from hepfaas.sandbox.processes import fork_server

fork_server().start("hepfaas.models.inference_worker")  # it imports LiteRT while this process imports the rest

from hepfaas.platform.settings import Settings  # noqa: E402
from hepfaas.serving.open_inference_grpc import serve  # noqa: E402

SETTINGS = Settings.from_environ(os.environ)
confinement.check(SETTINGS.learner_without_landlock)

if __name__ == "__main__":
    asyncio.run(serve(SETTINGS))
