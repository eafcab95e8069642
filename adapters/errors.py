class ConfigError(ValueError):
    """A setting that cannot work: one line naming the key, what was given and what is allowed."""


def one_line(error: Exception) -> str:
    """The first line of another library's message, for use inside a ConfigError."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split()) if lines else type(error).__name__
