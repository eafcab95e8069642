"""Tensor-train fine-tuning of any transformers model, as methods of peft. Importing this package registers them.

>>> import t3nsor_peft
>>> model = peft.get_peft_model(model, t3nsor_peft.TTLoraConfig(r=8, d=2, target_modules="all-linear"))
"""

from t3nsor_peft.registration import check_version, register

check_version()  # before what follows, which imports names that another peft may not have

from t3nsor_peft.config import TTLoraConfig  # noqa: E402
from t3nsor_peft.tt_lora import TTLoraLinear, TTLoraModel  # noqa: E402

register("TT_LORA", TTLoraConfig, TTLoraModel)

__all__ = ["TTLoraConfig", "TTLoraLinear", "TTLoraModel"]
