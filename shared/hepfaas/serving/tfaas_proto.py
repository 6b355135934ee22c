"""The protobuf messages of TFaaS: package tfaaspb, its src/proto/tfaas.proto."""

from __future__ import annotations

from hepfaas.serving.protobuf import messages

message = messages(
    "tfaaspb",
    {
        "Row": [("key", 1, "repeated string"), ("value", 2, "repeated float"), ("model", 3, "string")],
        "DataFrame": [("row", 1, "repeated Row")],
        "Class": [("label", 1, "string"), ("probability", 2, "float")],
        "Predictions": [("prediction", 1, "repeated Class")],
    },
)


def predictions(scores: list[tuple[str, float]]) -> bytes:
    """Scores with the label of each, as a message Predictions."""
    classes = [message("Class")(label=label, probability=score) for label, score in scores]
    data: bytes = message("Predictions")(prediction=classes).SerializeToString()
    return data
