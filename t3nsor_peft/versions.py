"""Which peft this package works with. It imports nothing of peft, as another may lack what the rest imports."""

from importlib.metadata import PackageNotFoundError, version

OLDEST, TOO_NEW = "0.20", "0.22"


def check_version() -> None:
    """Raise ImportError unless the installed peft is one that these methods work with."""
    needs = f"t3nsor_peft needs peft >= {OLDEST} and < {TOO_NEW}"
    remedy = f'pip install "peft>={OLDEST},<{TOO_NEW}", the extra `peft` of t3nsor'
    try:
        installed = version("peft")
    except PackageNotFoundError:
        raise ImportError(f"{needs}, and there is none; {remedy}") from None
    if not _numbers(OLDEST) <= _numbers(installed) < _numbers(TOO_NEW):
        raise ImportError(f"{needs}; installed is peft {installed}; {remedy}")


def _numbers(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)
