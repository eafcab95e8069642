"""Names in the files of peft."""

import re

TESTED = "0.21.2"  # the version of peft whose format this is
FINGERPRINT = "base_fingerprint"  # in the metadata of the weights, which peft does not read
PROMPT = "encoder.prompt.embedding"
NORM = re.compile(r"(.+\.)?(final_)?layer_norm\.weight")
LINEAR = re.compile(r"(encoder|decoder)\.block\.(\d+)\.layer\.\d+\.\w+\.(wi|wi_0|wi_1|wo|q|k|v|o)")
