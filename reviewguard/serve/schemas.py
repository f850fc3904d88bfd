"""Bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from reviewguard.serve.arms import CHALLENGER, CHAMPION, Answer, ArmName, Arms
from reviewguard.serve.served import Served


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PredictRequest(_Body):
    """One text, or several."""

    text: str | None = Field(None, description="A text. Either this or `texts`.")
    texts: list[str] | None = Field(None, min_length=1, description="Texts. Either this or `text`.")
    key: str | None = Field(None, description="What an A/B test assigns by, such as the id of an author; default: the text.")
    keys: list[str] | None = Field(None, description="A key for each text.")


class ModelInfo(BaseModel):
    """The model that answered."""

    name: str
    sha256: str = Field(description="Identifies the model with its decisions.")

    @classmethod
    def of(cls, served: Served) -> ModelInfo:
        """Name and hash of a model."""
        return cls(name=served.name, sha256=served.sha256)


class PredictionOut(BaseModel):
    """The prediction of a text; see `reviewguard.Prediction`."""

    label: str | None = Field(description="The predicted class; null if the text is empty.")
    score: float | None = Field(description="Its probability.")
    decision: str | None = Field(description="A class, `needs_review`, or, of a one-sided model, `not_flagged`.")
    truncated: bool = Field(description="Whether the end of the text was not read.")
    out_of_distribution: bool = Field(description="Whether the text is unlike the training texts in language or length.")
    scores: dict[str, float] = Field(description="The probability of each class.")
    error: str | None = Field(description="Why there is no prediction.")
    arm: ArmName = Field(description="The model that answered, in an A/B test.")

    @classmethod
    def of(cls, answer: Answer) -> PredictionOut:
        """Convert an answer."""
        return cls(arm=answer.arm, **msgspec.structs.asdict(answer.prediction))


class PredictResponse(BaseModel):
    """Predictions, in the order of the texts."""

    model: ModelInfo
    challenger: ModelInfo | None = Field(description="The second model of an A/B test.")
    predictions: list[PredictionOut]

    @classmethod
    def of(cls, arms: Arms, answers: list[Answer]) -> PredictResponse:
        """The answers of a server."""
        answered = {answer.arm: answer.served for answer in answers}
        model = ModelInfo.of(answered.get(CHAMPION, arms.champion.served))
        challenger = None
        if arms.challenger is not None and not arms.shadow:
            challenger = ModelInfo.of(answered.get(CHALLENGER, arms.challenger.served))
        return cls(model=model, challenger=challenger, predictions=[PredictionOut.of(answer) for answer in answers])


class ErrorDetail(BaseModel):
    """An error."""

    type: str = Field(description="A word that programs can compare.")
    message: str


class ErrorResponse(BaseModel):
    """The body of every answer with an error status."""

    error: ErrorDetail


class InferInput(BaseModel):
    """An input tensor of the Open Inference Protocol: texts."""

    model_config = ConfigDict(strict=True)

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(max_length=8)]
    datatype: Literal["BYTES"]
    data: list[Annotated[str, Field(strict=True)]]
    parameters: dict[str, Any] | None = None


class RequestedOutput(BaseModel):
    """An output tensor that a request asks for."""

    model_config = ConfigDict(strict=True)

    name: Literal["label", "decision", "scores", "out_of_distribution", "truncated"]
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol, version 2."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1)]
    outputs: list[RequestedOutput] | None = Field(None, description="Outputs of the answer; default: all.")
    parameters: dict[str, Any] | None = None


class InferOutput(BaseModel):
    """An output tensor of the Open Inference Protocol."""

    name: str
    shape: list[int]
    datatype: Literal["BYTES", "FP32", "BOOL"]
    data: list[Any]


class InferResponse(BaseModel):
    """An answer of the Open Inference Protocol, version 2."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]
