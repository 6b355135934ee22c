"""The network as a model of KServe."""

import sys

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from network import predict


class Network(Model):
    def __init__(self) -> None:
        super().__init__("bench")
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        scores = predict(payload.inputs[0].as_numpy().astype("float32"))
        output = InferOutput("scores", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=False)
        return InferResponse(payload.id or "1", self.name, [output])


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([Network()])
