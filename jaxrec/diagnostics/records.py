"""Records are plain: Python numbers, lists and None, which any JSON reader takes."""

from typing import Any

import numpy as np

Record = dict[str, Any]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def number(value: float, digits: int | None = None) -> float | None:
    """A number that JSON knows, to so many digits where told; None where it is not finite."""
    if not np.isfinite(value):
        return None
    return float(value) if digits is None else float(f"{value:.{digits}g}")


def plain(values: Any, digits: int | None = None) -> Any:
    """Nested lists of such numbers."""
    values = np.asarray(values, np.float64)
    if values.ndim == 0:
        return number(float(values), digits)
    if digits is None and np.isfinite(values).all():
        return values.tolist()
    return [plain(one, digits) for one in values]
