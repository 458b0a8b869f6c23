"""What the clients ask, and what the demo model answers to it."""

from typing import Literal

import pydantic

ASK = "What is 2+2?"
ANSWER = "The answer to this classic math problem is 4."
TOO_LONG = "word " * 9000


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Oslo"]
    degrees: Literal[7, 12, 25]
    rain: bool
