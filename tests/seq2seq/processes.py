"""Runs in processes that may die or that train together. They are forked from a server that has imported everything:
a new interpreter takes 6 s until it has."""

import gc
import json
import multiprocessing
import os
from pathlib import Path

from torch.distributed import TCPStore

from common.checksums import sealed, sha256_of
from tests.conftest import ROOT

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["seq2seq.pipeline", "tests.conftest", "tests.methods"])


def arguments_of(config: str, **keys) -> list[str]:
    """The command line of a run."""
    return [str(ROOT / config), *(part for key, value in keys.items() for part in (f"--{key}", json.dumps(value)))]


def resealed(checkpoint: Path, **facts) -> None:
    """Change the run facts of a checkpoint, and make its checksums fit all its files as they are now."""
    file = checkpoint / "run_facts.json"
    files = {path.name: sha256_of(path) for path in checkpoint.iterdir() if path != file}
    file.write_text(json.dumps(sealed({**json.loads(file.read_text()), **facts}, files)))


def torchrun_variables(rank: int, processes: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets for the process `rank`; at `port` of this machine there is a TCPStore."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def exit_codes(target, *arguments, log: Path, processes: int = 1) -> list[int]:
    """Exit codes of `target(*arguments)` in one process, or in several that find each other as under torchrun.

    log: a file for what they print.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [torchrun_variables(rank, processes, store.port) if processes > 1 else {} for rank in range(processes)]
    started = [CONTEXT.Process(target=_run, args=(target, arguments, log, variables)) for variables in ranks]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        process.kill()  # one that waits for another which died
        process.join()
    return [process.exitcode for process in started]


def _run(target, arguments, log: Path, variables: dict[str, str]) -> None:
    gc.freeze()
    with open(log, "a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(variables)
    os.chdir(ROOT)
    os._exit(target(*arguments))
