"""Making methods known to peft: `PeftType`, a closed enumeration, gets a member for each."""

from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method
from peft.utils.hotswap import CONFIG_KEYS_TO_CHECK
from peft.utils.peft_types import PeftType


def peft_type(name: str) -> PeftType:
    """Return the member of `PeftType` called `name`, which is added if there is none.

    It has all that the enumeration gives its own members: identity, lookup by name and by value, pickling by value.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    member._sort_order_ = len(PeftType)
    member.__objclass__ = PeftType
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)
    return member


def allow_hotswap() -> None:
    """Let peft's hotswap_adapter exchange adapters of TT-LoRA whose configurations agree in what is listed here.

    It takes fields of LoRA for granted that the other methods do not have.
    """
    CONFIG_KEYS_TO_CHECK[peft_type("TT_LORA")] = [
        *("r", "rank_pattern", "layer_shapes", "ring"),
        *("lora_alpha", "alpha_pattern", "use_rslora", "lora_dropout", "bias"),
    ]


def register(name: str, config: type[PeftConfig], model: type[BaseTuner]) -> None:
    """Register a method with peft under the upper-case `name`; again for the same method, nothing happens.

    Raises ImportError if peft, or another package, has a method of that name.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    member = peft_type(name)
    registered = PEFT_TYPE_TO_TUNER_MAPPING.get(member)
    if registered is model:
        return
    if registered is not None:
        raise ImportError(f"t3nsor_peft: peft has a method {name} already, {registered.__module__}")
    register_peft_method(name=name.lower(), config_cls=config, model_cls=model, prefix=model.prefix)
