"""The alphabet of axes, and the array aliases spelled with it.

``b`` batch, ``t`` time, ``d`` features in, ``h`` hidden, ``i`` items of the catalogue, ``k`` list length, ``n``
negatives or positions, ``s`` seeds or trials. The aliases are documentation for readers and are checked in tests only.
"""

from jaxtyping import Array, Bool, Float, Int, Key, Shaped

Vector = Float[Array, " d"]  # one event's vector
Hidden = Float[Array, " h"]  # one state vector
Gap = Float[Array, ""]  # seconds since the previous event
RandomKey = Key[Array, ""]

Sequences = Float[Array, "b t d"]
Outputs = Float[Array, "b t h"]
Resets = Bool[Array, "b t"]
Ids = Int[Array, "b t"]
OverTime = Shaped[Array, "b t ..."]
OverBatch = Shaped[Array, "b ..."]

Positions = Float[Array, "n d"]
Table = Float[Array, "i d"]
Targets = Int[Array, " n"]
TopIds = Int[Array, "b k"]
