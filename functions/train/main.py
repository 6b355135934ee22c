"""train: train steps, one after the other while the budget lasts; export and convert steps. TensorFlow runs in a child.

Takes a CloudEvent org.hepfaas.{train,export,convert}.requested (docs/reference/events.md); stores the step's checkpoint
or graph; sends .phase.completed, .step.completed, .step.failed or .step.missing. Answers 204, 403 to an event without a
valid signature, 422 if the step cannot be done, 503 to get the event again.
"""

import os

import functions_framework
from flask import Request, Response
from hepfaas.learner.learner import LearnerLimits
from hepfaas.learner.step_log import StepLog
from hepfaas.models.inference import Inference
from hepfaas.orchestration.stepping import Tools, step_function
from hepfaas.platform.settings import Settings
from hepfaas.sandbox import confinement
from hepfaas.steps.learning import Learners

SETTINGS = Settings.from_environ(os.environ)
confinement.check(SETTINGS.learner_without_landlock)
confinement.hide()
PRINTED = StepLog()
LIMITS = LearnerLimits(
    SETTINGS.learner_memory_mb, SETTINGS.learner_cpus, SETTINGS.learner_scratch_mb, SETTINGS.learner_silence_s
)
LEARNERS = Learners(PRINTED.append, LIMITS)
INFERENCE = Inference(SETTINGS.worker_memory)
TOOLS: Tools = {
    "train": {"learners": LEARNERS, "on_rows": lambda rows: None, "inference": INFERENCE},
    "export": {"learners": LEARNERS, "inference": INFERENCE},
    "convert": {"learners": LEARNERS, "inference": INFERENCE},
}
ANSWER = step_function("train", SETTINGS, TOOLS, PRINTED)


@functions_framework.http
def train(request: Request) -> Response:
    return ANSWER(request)
