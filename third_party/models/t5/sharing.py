"""Writing the adapters of a T5 to directories and to the hub, in our format, in peft's, or folded into a plain T5."""

import os
import tempfile
from pathlib import Path
from typing import Any

from adapters import remerge
from common.errors import ConfigError
from third_party.models.t5 import adapter_checkpoint
from third_party.models.t5.companions import write_companions
from third_party.models.t5.export import merge_and_export
from third_party.models.t5.guards import ADVICE, check_native
from third_party.models.t5.hub import adapter_directory, upload


class Sharable:
    """The part of `T5ForConditionalGeneration` that writes and reads adapters."""

    def save_adapter(self, directory: str | os.PathLike) -> None:
        """Write the adapters and all other trained parameters to `directory`, without the backbone.

        The tokenizer is written beside them, and for a model that run_seq2seq.py trained how texts were made of data.
        """
        check_native(self)
        adapter_checkpoint.save(self, Path(directory))
        write_companions(self, Path(directory))

    def export_peft(self, directory: str | os.PathLike, task: str | None = None) -> None:
        """Write the adapters in peft's format, for `PeftModel.from_pretrained`; `from_pretrained` here reads them, too.

        The tokenizer is written beside them.
        task: whose branches, where each task has its own; for peft, each is an adapter.
        Raises ConfigError, with the reason, if peft has no equal of the method or of what is trained beside it.
        """
        check_native(self)
        adapter_checkpoint.export_peft(self, Path(directory), task)
        write_companions(self, Path(directory))

    def push_to_hub(self, repo_id: str, *, peft: bool = False, task: str | None = None, **options: Any) -> str:
        """Upload the adapters, without the backbone, to the hub; return the address.

        repo_id: "me/name".
        peft: True for peft's format; task: see `export_peft`.
        options: private, token, revision, create_pr and commit_message, as for transformers' method of this name, which
            uploads a model without adapters.
        Raises ConfigError as `save_adapter` or `export_peft` do, or if the hub refuses or cannot be reached.
        """
        if self.adapter_config is None:
            return super().push_to_hub(repo_id, **options)
        with tempfile.TemporaryDirectory() as directory:
            self.export_peft(directory, task) if peft else self.save_adapter(directory)
            return upload(Path(directory), repo_id, **options)

    def merge_and_export(self, directory: str | os.PathLike) -> None:
        """Write a plain T5, loadable by transformers alone, with everything that was trained folded into its weights.

        Its tokenizer is written beside it.
        Raises ConfigError, with the reason, if a method cannot be folded.
        """
        check_native(self)
        merge_and_export(self, Path(directory))
        write_companions(self, Path(directory), scores=False)

    def load_adapter(self, directory: str | os.PathLike, **foreign: Any) -> None:
        """Load the tensors written by `save_adapter`, or by peft, into a model that has the same adapters attached.

        directory: the directory, or a hub id.
        foreign: arguments of the method of transformers, which loads adapters of peft; there must be none.
        Raises ConfigError, listing the differences, if they do not match the model.
        """
        if foreign:
            raise ConfigError(f"load_adapter with {', '.join(foreign)} is for adapters of peft; {ADVICE}")
        check_native(self)
        adapter_checkpoint.load(self, adapter_directory(directory) or Path(directory))
        remerge(self)
