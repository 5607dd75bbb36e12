"""The alphabet of axes, and the array aliases spelled with it.

``b`` batch, ``t`` time, ``d`` features in, ``h`` hidden, ``i`` items of the catalogue, ``k`` list length, ``n``
negatives or positions, ``s`` seeds or trials. The aliases are documentation for readers and are checked in tests
only.
"""

from jaxtyping import Array, Bool, Float

Hidden = Float[Array, " h"]  # one example's state vector
Restart = Bool[Array, " b"]  # rows that start afresh before their next event
Resets = Bool[Array, "b t"]  # events before which a row starts afresh
