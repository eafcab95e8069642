class ShapeError(ValueError):
    """Shapes, ranks, sizes or options that do not fit; the message states what was given and what is allowed."""
