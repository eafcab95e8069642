class ShapeError(ValueError):
    """Shapes, ranks or sizes that do not fit together; the message states what was given and what is allowed."""
