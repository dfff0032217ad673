"""The models that are tried, by library: wrapped, or refused with the words that must be said."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import zoo_models as own
from torch import nn
from torch.nn.utils import prune

TABLE: dict[str, Any] = {"shape": (12,)}
IMAGE: dict[str, Any] = {"shape": (3, 32, 32)}
SMALL: dict[str, Any] = {"shape": (3, 16, 16)}
TOKENS: dict[str, Any] = {"shape": (12,), "dtype": "int64"}


@dataclass(frozen=True)
class Case:
    """A model of a ``library``; ``refused`` are words of the refusal, where it must be one.

    ``classes`` it tells apart; ``takes`` says what rows are; ``key`` picks its output for training.
    """

    library: str
    name: str
    make: Callable[[], Any]
    takes: dict[str, Any] = field(default_factory=lambda: dict(TABLE))
    classes: int = 2
    refused: str | None = None
    recipe: str | None = None
    trained: bool = True
    output: str = "auto"


def load(name: str) -> Any:
    """A module of a library, or what is in it: ``package.module:name``."""
    place, _, part = name.partition(":")
    module = importlib.import_module(place)
    return getattr(module, part) if part else module


def of_torch() -> Iterator[Case]:
    """torch alone, as people write it."""

    case = partial(Case, "torch")
    yield case("logistic regression", lambda: nn.Linear(12, 1))
    yield case(
        "sequential of 13 layers",
        lambda: nn.Sequential(
            *(layer for _ in range(6) for layer in (nn.Linear(12, 12), nn.Tanh())), nn.Linear(12, 2)
        ),
    )
    yield case(
        "named layers",
        lambda: nn.Sequential(
            OrderedDict([("zoom", nn.Linear(12, 16)), ("act", nn.ReLU()), ("a", nn.Linear(16, 2))])
        ),
    )
    for last in ("logit", "flat", "squeezed", "sigmoid", "temperature"):
        yield case(f"net, {last}", lambda last=last: own.Net(last))
    for last in ("softmax", "log_softmax", "logit"):
        yield case(f"net of 3, {last}", lambda last=last: own.Net(last, 3), classes=3)
    for form in ("dict", "tuple", "named", "dataclass"):
        out = "score" if form == "dataclass" else "auto"
        yield case(f"net, {form}", lambda form=form: own.Net("logit", 2, form), output=out)
    yield case("renamed arguments", lambda: own.Renamed(12, 16))
    yield case("a function as argument", lambda: own.Renamed(12, 16, torch.tanh))
    yield case("plain tensors", own.PlainTensors)
    yield case("no layer at the end", own.Functional)
    yield case("LSTM", own.Recurrent)
    yield case("GRU", lambda: own.Recurrent("GRU"))
    yield case("wide and deep", own.WideAndDeep)
    yield case("ensemble", own.Ensemble)
    yield case("mixture of experts", own.Mixture)
    two = {"inputs": (("numbers", 8, "float32"), ("tokens", 4, "int64"))}
    yield case("two inputs", own.TwoInputs, takes=two)
    yield case("a dictionary of inputs", own.FromDict, takes=two)
    yield case("two inputs, one given", own.TwoInputs, refused="takes 2 inputs")
    yield case("bag of tokens", own.Words, takes=TOKENS)
    yield case("transformer with a mask", own.Attention, takes=TOKENS)
    yield case("ends in a convolution", own.Convolutions, takes=SMALL, classes=3)


def of_torch_changed() -> Iterator[Case]:
    """Layers that were changed, wrapped, or compute in another type."""
    case = partial(Case, "torch")
    yield case("weight_norm, old", lambda: _normed(nn.utils.weight_norm))
    yield case("weight_norm", lambda: _normed(nn.utils.parametrizations.weight_norm))
    yield case("spectral_norm", lambda: _normed(nn.utils.parametrizations.spectral_norm))
    yield case("spectral_norm, old", lambda: _normed(nn.utils.spectral_norm))
    yield case("pruned", _pruned)
    yield case("torch.compile", lambda: torch.compile(own.Net(), backend="eager"))
    yield case("DataParallel", lambda: nn.DataParallel(own.Net()))
    yield case("averaged weights", lambda: torch.optim.swa_utils.AveragedModel(own.Net()))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        yield case(f"{dtype}", lambda dtype=dtype: _scaled(own.Net("logit", 2)).to(dtype),
                   trained=False)  # fmt: skip
    yield case("autocast", own.Autocast)
    yield case("a lock that is not used", own.Unlocked)
    yield case("lazy layers", _lazy)
    yield case("factory", own.make_net)
    yield case("replaced head", _replaced_head)


def of_torch_odd() -> Iterator[Case]:
    """What is refused, and what only looks as if it had to be."""
    case = partial(Case, "torch")
    yield case("calibrated sigmoid", lambda: own.Net("calibrated"))
    yield case("multi-label", lambda: own.Net("sigmoids", 3), refused="multi-label")
    yield case("regression", lambda: own.Net("price"), refused="regression")
    yield case("positive regression", lambda: own.Net("softplus"), refused="one side of 0")
    yield case("tanh", lambda: _scaled(own.Net("tanh")), refused="squashed")
    yield case("labels", lambda: own.Net("argmax", 2), refused="logits or probabilities")
    yield case("an answer a token", own.Autoregressive, takes=TOKENS, refused="per-token")
    yield case("two tensors", lambda: own.Net("logit", 2, "two"), refused="--gives")
    yield case("a lock", own.Locked)
    yield case("a lock, and a new head", _locked, refused="lock")
    yield case("dropout left on", own.Drops, refused="asked again")
    yield case("batch statistics", own.ByBatch, refused="depends on the other rows")
    yield case("NaN for some rows", own.Root, refused="finite")
    yield case("one answer for two rows", own.Pairs, refused="one answer a row")
    yield case("a hook of its constructor", own.Hooked)
    yield case("a hook", _hooked, refused="hook")
    yield case("quantised", _quantised, refused="quantised")
    yield case(
        "scripted", lambda: torch.jit.script(nn.Sequential(nn.Linear(12, 2))), refused="made from"
    )
    yield case("not run lazy layers", lambda: nn.Sequential(nn.LazyLinear(2)), refused="lazy")
    yield case("meta", lambda: nn.Linear(12, 2, device="meta"), refused="no values")


def _scaled(net: nn.Module) -> nn.Module:
    """With outputs as large as a trained one's."""
    with torch.no_grad():
        net.out.weight.mul_(6)
    return net


def _locked() -> nn.Module:
    net = own.Locked()
    net.out = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1))
    return net


def _hooked() -> nn.Module:
    net = own.Net()
    net.body.register_forward_hook(lambda layer, given, gave: gave * 2)
    return net


def _normed(norm: Callable[..., nn.Module]) -> nn.Module:
    return nn.Sequential(norm(nn.Linear(12, 16)), nn.ReLU(), norm(nn.Linear(16, 1)))


def _pruned() -> nn.Module:
    net = own.Net()
    prune.l1_unstructured(net.body[0], "weight", 0.3)
    return net


def _lazy() -> nn.Module:
    net = nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))
    net(torch.randn(8, 12))
    return net


def _replaced_head() -> nn.Module:
    net = own.Ensemble()
    net.members[0].out = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1))
    return net


def _quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(own.make_net(), {nn.Linear})


def of_vision() -> Iterator[Case]:
    """torchvision, timm, vit-pytorch, efficientnet-pytorch, MONAI."""
    models = load("torchvision.models")
    for name in (
        "resnet18",
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "densenet121",
        "regnet_y_400mf",
        "efficientnet_b0",
        "convnext_tiny",
        "swin_t",
    ):
        output = "logits" if "squeeze" in name else "auto"  # its last step is a ReLU
        yield Case("torchvision", name, lambda name=name: models.get_model(name, num_classes=3),
                   takes=IMAGE, classes=3, output=output)  # fmt: skip
    yield Case("torchvision", "resnet18, new head", lambda: _new_head(models), takes=IMAGE)
    timm = load("timm")
    for name in ("resnet10t", "mobilenetv4_conv_small_050", "vit_tiny_patch16_224",
                 "mixer_s32_224", "convnext_atto", "efficientvit_b0",
                 "levit_128s", "edgenext_xx_small"):  # fmt: skip
        sized = {"img_size": 32} if name.startswith(("vit", "mixer")) else {}
        if name.startswith("vit"):
            sized["patch_size"] = 8
        takes = {"shape": (3, 224, 224)} if name.startswith("levit") else IMAGE
        yield Case("timm", name, lambda name=name, sized=sized: timm.create_model(
            name, num_classes=2, **sized), takes=takes)  # fmt: skip
    vit = load("vit_pytorch")
    yield Case("vit-pytorch", "ViT", lambda: vit.ViT(
        image_size=32, patch_size=8, num_classes=2, dim=32, depth=2, heads=2, mlp_dim=64),
        takes=IMAGE)  # fmt: skip
    yield Case("vit-pytorch", "SimpleViT", lambda: vit.SimpleViT(
        image_size=32, patch_size=8, num_classes=3, dim=32, depth=2, heads=2, mlp_dim=64),
        takes=IMAGE, classes=3)  # fmt: skip
    efficient = load("efficientnet_pytorch:EfficientNet")
    yield Case("efficientnet-pytorch", "b0", lambda: efficient.from_name(
        "efficientnet-b0", num_classes=2, image_size=32), takes=IMAGE)  # fmt: skip
    monai = load("monai.networks.nets")
    yield Case("MONAI", "DenseNet121", lambda: monai.DenseNet121(2, 3, 3), takes=IMAGE, classes=3)
    yield Case("MONAI", "SEResNet50", lambda: monai.SEResNet50(
        spatial_dims=2, in_channels=3, num_classes=2), takes=IMAGE)  # fmt: skip


def _new_head(models: Any) -> nn.Module:
    net = models.resnet18()
    net.fc = nn.Linear(net.fc.in_features, 2)
    return net


def of_tables() -> Iterator[Case]:
    """rtdl, TabNet, TabM, KAN, TabTransformer, Lightning, skorch."""
    rtdl = load("rtdl_revisiting_models")
    yield Case("rtdl", "MLP", lambda: rtdl.MLP(
        d_in=12, d_out=1, n_blocks=2, d_block=24, dropout=0.1))  # fmt: skip
    yield Case("rtdl", "ResNet", lambda: rtdl.ResNet(
        d_in=12, d_out=3, n_blocks=2, d_block=24, d_hidden=None, d_hidden_multiplier=2.0,
        dropout1=0.2, dropout2=0.0), classes=3)  # fmt: skip
    small = rtdl.FTTransformer.get_default_kwargs(n_blocks=1)
    yield Case("rtdl", "FT-Transformer", lambda: rtdl.FTTransformer(
        n_cont_features=12, cat_cardinalities=[], d_out=1, **{**small, "d_block": 32,
        "attention_n_heads": 4}))  # fmt: skip
    mixed = {"inputs": (("x_cont", 8, "float32"), ("x_cat", 4, "int64"))}
    yield Case("rtdl", "FT-Transformer, categories", lambda: rtdl.FTTransformer(
        n_cont_features=8, cat_cardinalities=[8] * 4, d_out=2, **{**small, "d_block": 32,
        "attention_n_heads": 4}), takes=mixed)  # fmt: skip
    numbers = load("rtdl_num_embeddings")
    for name, make in {
        "linear embeddings": lambda: numbers.LinearReLUEmbeddings(12, 8),
        "periodic embeddings": lambda: numbers.PeriodicEmbeddings(12, 8, lite=False),
    }.items():
        yield Case("rtdl", name, lambda make=make: nn.Sequential(
            make(), nn.Flatten(), nn.Linear(96, 24), nn.ReLU(), nn.Linear(24, 1)))  # fmt: skip
    tabnet = load("pytorch_tabnet.tab_network:TabNet")
    groups = lambda: torch.eye(12)  # noqa: E731
    yield Case("pytorch-tabnet", "network", lambda: tabnet(
        12, 2, n_d=8, n_a=8, group_attention_matrix=groups()))  # fmt: skip
    yield Case("pytorch-tabnet", "TabNetClassifier", _tabnet, trained=False)
    tabm = load("tabm:TabM")
    yield Case("tabm", "TabM", lambda: tabm.make(n_num_features=12, d_out=2),
               refused="one answer a row", trained=False)  # fmt: skip
    kan = load("kan")
    yield Case("pykan", "KAN", lambda: kan.KAN(
        width=[12, 4, 2], grid=3, k=3, auto_save=False), trained=False,
        refused="it cannot be stored that")  # fmt: skip
    lightning = load("zoo_lightning")
    yield Case("Lightning", "module with hyperparameters", lambda: lightning.Lit(width=20))
    yield Case("Lightning", "trained by a Trainer", lightning.trained, trained=False)
    skorch = load("zoo_skorch")
    yield Case("skorch", "NeuralNetClassifier", skorch.fitted, trained=False)
    yield Case("skorch", "module_", lambda: skorch.fitted().module_, trained=False)


def _tabnet() -> Any:
    from zoo_data import table

    x, y = table(1_000, 0)
    model = load("pytorch_tabnet.tab_model:TabNetClassifier")(verbose=0, seed=0, device_name="cpu")
    model.fit(x, y, max_epochs=15, batch_size=256, virtual_batch_size=256)
    return model


def of_language() -> Iterator[Case]:
    """transformers, x-transformers."""
    hf = load("transformers")
    few = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 64, "max_position_embeddings": 64, "num_labels": 2,
           "pad_token_id": 0}  # fmt: skip
    for name in ("Bert", "Roberta", "Electra", "DebertaV2"):
        yield Case("transformers", name, lambda name=name: getattr(
            hf, f"{name}ForSequenceClassification")(getattr(hf, f"{name}Config")(**few)),
            takes=TOKENS)  # fmt: skip
    yield Case("transformers", "DistilBert", lambda: hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(vocab_size=32, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
        takes=TOKENS)  # fmt: skip
    yield Case("transformers", "GPT2", lambda: hf.GPT2ForSequenceClassification(hf.GPT2Config(
        vocab_size=33, n_positions=64, n_embd=32, n_layer=2, n_head=2, pad_token_id=32)),
        takes=TOKENS)  # fmt: skip
    yield Case("transformers", "ViT", lambda: hf.ViTForImageClassification(hf.ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, num_labels=3)), takes=IMAGE, classes=3)  # fmt: skip
    yield Case("transformers", "ResNet", lambda: hf.ResNetForImageClassification(hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=2)),
        takes=IMAGE)  # fmt: skip
    both = {"inputs": (("input_ids", 6, "int64"), ("attention_mask", 6, "int64"))}
    yield Case("transformers", "Bert with a mask", lambda: hf.BertForSequenceClassification(
        hf.BertConfig(**few)), takes=both)  # fmt: skip
    yield Case("transformers", "tokens", lambda: hf.BertForTokenClassification(
        hf.BertConfig(**few)), takes=TOKENS, refused="per-token")  # fmt: skip
    x = load("x_transformers")
    for name, more in {"encoder": {}, "rotary": {"rotary_pos_emb": True}, "swiglu": {
            "ff_swish": True, "ff_glu": True}}.items():  # fmt: skip
        yield Case("x-transformers", name, lambda more=more: nn.Sequential(x.TransformerWrapper(
            num_tokens=32, max_seq_len=16, num_memory_tokens=None, logits_dim=2,
            average_pool_embed=True, attn_layers=x.Encoder(dim=32, depth=2, heads=2, **more))),
            takes=TOKENS)  # fmt: skip
    yield Case("x-transformers", "ViT", lambda: x.ViTransformerWrapper(
        image_size=32, patch_size=8, num_classes=2, attn_layers=x.Encoder(
            dim=32, depth=2, heads=2)), takes=IMAGE)  # fmt: skip


def all_cases() -> Iterator[Case]:
    """Every case whose library is here; another's absence is said."""
    groups = (of_torch, of_torch_changed, of_torch_odd, of_tables, of_language, of_vision)
    for group in groups:
        yield from group()
