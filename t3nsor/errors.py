class ShapeWarning(UserWarning):
    """A layer that stores more numbers than the dense matrix, table or vector that it stands for."""


class ShapeError(ValueError):
    """Shapes, ranks, sizes or options that do not fit; the message states what was given and what is allowed."""
