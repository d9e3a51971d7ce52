"""A filter of a small collection."""


class FilterModule:
    """Names its filters."""

    def filters(self):
        """One filter."""
        return {"mirror": lambda text: text[::-1]}
