"""A filter of the spec's own."""


class FilterModule:
    """Names its filters."""

    def filters(self):
        """One filter."""
        return {"boxed": lambda text: f"[{text}]"}
