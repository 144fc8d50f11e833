"""How fast the data of the next step comes."""

from typing import Annotated

from pydantic import Field, model_validator

from moesim.spec.base import Spec
from moesim.spec.quantities import BytesPerS, TokensPerS


class DataLoadingSpec(Spec):
    """Rates of storage and preparation, for the whole job.

    Loaders work one step ahead: they cost time only in steps shorter than loading the next one's.
    """

    storage_bandwidth: BytesPerS | None = None
    """Rate at which the whole job reads its data from storage; each token is read once."""
    bytes_per_token: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Bytes that are read per token; left out, those of a file of token numbers: 2 where they are
    below 65,500, else 4. Text has some 4, images and sound far more."""
    tokens_per_s: TokensPerS | None = None
    """Tokens per second that the hosts of the whole job prepare: tokenising, decoding, packing."""

    @model_validator(mode="after")
    def _check(self) -> "DataLoadingSpec":
        if self.storage_bandwidth is None and self.tokens_per_s is None:
            raise ValueError(
                "give storage_bandwidth, tokens_per_s or both; without a rate leave data_loading "
                "out: data is always there then"
            )
        if self.storage_bandwidth is None and self.bytes_per_token is not None:
            raise ValueError("bytes_per_token needs storage_bandwidth, the rate of reading them")
        for name in ("storage_bandwidth", "tokens_per_s"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be above zero, or no step ever begins")
        return self
