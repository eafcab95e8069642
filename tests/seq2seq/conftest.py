from functools import partial

import pytest

from tests.seq2seq.fork_files import fork_file


@pytest.fixture
def fork(tmp_path):
    """fork(key=value, ..) writes a file in the form of the fork, with other values of some keys."""
    return partial(fork_file, tmp_path)
