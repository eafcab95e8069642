"""Tensor-train fine-tuning of any transformers model, as methods of peft. Importing this package registers them.

>>> import t3nsor_peft
>>> model = peft.get_peft_model(model, t3nsor_peft.TTLoraConfig(r=8, d=2, target_modules="all-linear"))
"""

from t3nsor_peft.versions import check_version

check_version()  # before what follows, which imports peft, and names that another one may not have

from t3nsor_peft.config import TTLoraConfig  # noqa: E402
from t3nsor_peft.meta_tt import MetaTTConfig, MetaTTModel  # noqa: E402
from t3nsor_peft.registration import allow_hotswap, register  # noqa: E402
from t3nsor_peft.tt_adapter import TTAdapterConfig, TTAdapterModel  # noqa: E402
from t3nsor_peft.tt_lora import TTLoraModel  # noqa: E402

METHODS = {
    "TT_LORA": (TTLoraConfig, TTLoraModel),
    "META_TT": (MetaTTConfig, MetaTTModel),
    "TT_ADAPTER": (TTAdapterConfig, TTAdapterModel),
}
for name, classes in METHODS.items():
    register(name, *classes)
allow_hotswap()

__all__ = ["METHODS", "MetaTTConfig", "MetaTTModel", "TTAdapterConfig", "TTAdapterModel", "TTLoraConfig", "TTLoraModel"]
