"""Protenix checkpoints: reading, splitting into trunk and diffusion module, and writing."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file

__all__ = [
    "DIFFUSION_PREFIX",
    "StateDict",
    "build_diffusion_module",
    "build_input_embedder",
    "build_model",
    "count_parameters",
    "empty_diffusion_module",
    "freeze",
    "load_checkpoint",
    "matching",
    "quiet",
    "save_checkpoint",
    "start_fingerprints",
    "trains_embedder",
    "trunk_fingerprint",
    "uninitialised",
    "with_depth",
]

StateDict = dict[str, Tensor]

DIFFUSION_PREFIX: Final = "diffusion_module."
EMBEDDER_PREFIX: Final = "input_embedder."
_WRAPPERS: Final = re.compile(r"^(?:module\.|_orig_mod\.)+")
_BLOCK = re.compile(r"^(diffusion_module\.diffusion_transformer\.blocks\.)(\d+)\.(.+)$")
# The last linear maps of the two residual branches of a diffusion transformer block (Algorithm 23).
_BRANCH_OUTPUTS = (
    "attention_pair_bias.attention.linear_o.weight",
    "conditioned_transition_block.linear_nobias_b.weight",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what Protenix prints while its modules are built."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class _NoDraws:
    """Stands in for `scipy.stats.truncnorm` while weights are built only to be overwritten.

    Drawing them takes 10 s for 60 million weights and minutes for the largest models.
    """

    @staticmethod
    def std(**_: float) -> float:
        return 1.0

    @staticmethod
    def rvs(*, size: int, **_: float) -> Any:
        return torch.zeros(size).numpy()


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Build modules with zeros in place of drawn weights, within the block."""
    from protenix.model.triangular import layers

    drawn, layers.truncnorm = layers.truncnorm, _NoDraws
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        layers.truncnorm = drawn


def load_checkpoint(path: Path | str) -> StateDict:
    """Read the weights in a Protenix checkpoint (`{"model": ...}`), unpickling tensors only.

    Raises:
        UserError: No such file, a cut one, or another format.
    """
    path = require_file(path, "checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds for what is no checkpoint
        raise _unreadable(path, error) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(torch.is_tensor(v) for v in model.values()):
        raise UserError(
            f"{path}: expected a dictionary with tensors under the key 'model', as Protenix writes"
        )
    # Wrappers of DistributedDataParallel and of torch.compile, in either order.
    return {_WRAPPERS.sub("", key): value for key, value in model.items()}


def _unreadable(path: Path, error: Exception) -> UserError:
    """Return the error for a file that is no checkpoint of tensors, without torch's advice."""
    with open(path, "rb") as file:
        start = file.read(60)
    if not start.startswith((b"PK", b"\x80")):
        shown = start.decode("utf-8", errors="replace").split("\n")[0].strip()
        return UserError(
            f"{path} is no checkpoint: it begins with {shown!r}",
            "a page of a website was saved instead of the file, perhaps: download it again",
        )
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not even its table of contents can be read
        found = []
    if found:
        return UserError(
            f"{path} is whole, but holds objects besides tensors ({', '.join(sorted(found)[:4])}), "
            "which are not unpickled: they can run any code",
            'save the weights alone where the file comes from: torch.save({"model": '
            "model.state_dict()}, path)",
        )
    reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
    return UserError(f"{path} is not a whole checkpoint: {reason}", "copy or download it again")


def save_checkpoint(path: Path | str, state: StateDict) -> None:
    """Write a checkpoint that stock Protenix loads; the file is whole or absent."""
    model = {key: value.detach().cpu().clone() for key, value in state.items()}
    with atomic_path(path) as temporary:
        torch.save({"model": model}, temporary)


def build_model(configs: Any, state: StateDict) -> nn.Module:
    """Build a whole Protenix in evaluation mode, without the cost of initialising it first."""
    from protenix.model.protenix import Protenix

    with uninitialised():
        model = Protenix(configs)
    return _load(model, state, "the configured model").eval()


def build_diffusion_module(configs: Any, state: StateDict) -> nn.Module:
    """Build only the diffusion module, without ever instantiating the trunk."""
    own = {
        key.removeprefix(DIFFUSION_PREFIX): value
        for key, value in state.items()
        if key.startswith(DIFFUSION_PREFIX)
    }
    return _load(empty_diffusion_module(configs), own, "the configured diffusion module")


def empty_diffusion_module(configs: Any) -> nn.Module:
    """Build a diffusion module of the configured sizes, whose weights mean nothing yet."""
    from protenix.model.modules.diffusion import DiffusionModule

    with uninitialised():
        module: nn.Module = DiffusionModule(**configs.model.diffusion_module)
    if not torch.cuda.is_available():
        # torch has no fused attention with a trained bias there, and is slower than plain products.
        for part in module.modules():
            if hasattr(part, "use_efficient_implementation"):
                part.use_efficient_implementation = False  # type: ignore[assignment]
    return module


def build_input_embedder(configs: Any, state: StateDict) -> nn.Module:
    """Build the trunk's first module, which the paper trains with the diffusion module.

    Raises:
        UserError: The model reads embeddings of a language model there.
    """
    from protenix.model.modules.embedders import InputFeatureEmbedder

    if configs.esm.enable:
        raise UserError(
            "the input embedder of a model with ESM embeddings cannot be trained here",
            "train diffusion_module.* alone",
        )
    with uninitialised():
        module = InputFeatureEmbedder(**configs.model.input_embedder)
    own = {
        key.removeprefix(EMBEDDER_PREFIX): value
        for key, value in state.items()
        if key.startswith(EMBEDDER_PREFIX)
    }
    return _load(module, own, "the configured input embedder")


def trains_embedder(patterns: Sequence[str], state: StateDict) -> bool:
    """Return whether a pattern of `eba.trainable` names a weight of the input embedder."""
    keys = [key for key in state if key.startswith(EMBEDDER_PREFIX)]
    return any(fnmatch.filter(keys, pattern) for pattern in patterns)


def _load(module: nn.Module, state: StateDict, what: str) -> nn.Module:
    expected = module.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    shapes = [k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape]
    for kind, keys in (
        ("lacks", missing),
        ("has unknown", unknown),
        ("has other sizes of", shapes),
    ):
        if keys:
            raise UserError(
                f"the checkpoint does not fit {what}: it {kind} {len(keys)} weights, for example "
                f"{sorted(keys)[0]}",
                "give the configuration that the checkpoint was made with (model_name and sizes)",
            )
    module.load_state_dict(state, strict=True)
    return module


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter that no pattern names.

    Args:
        module: A `denoiser.ConformerDenoiser`, whose parts are named as in a checkpoint.
        patterns: Globs over names in the checkpoint ("diffusion_module.diffusion_transformer.*").

    Raises:
        UserError: A pattern matches nothing that can be trained.
    """
    names = {n: p for n, p in module.named_parameters() if p.requires_grad}
    chosen = matching(
        patterns,
        names,
        "weight",
        "the trunk's embeddings are cached: only diffusion_module.* and input_embedder.* can be "
        "trained",
    )
    for name, parameter in names.items():
        parameter.requires_grad_(name in chosen)


def matching(patterns: Sequence[str], names: Iterable[str], what: str, hint: str) -> set[str]:
    """Return the names of weights that `eba.trainable` chooses.

    Args:
        patterns: Its globs.
        names: Names of the diffusion module's weights, as in a checkpoint.
        what: Noun for what the names are of ("weight"), for the message.
        hint: Hint of the error message.

    Raises:
        UserError: A pattern matches none.
    """
    names, chosen = list(names), set()
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise UserError(
                f"eba.trainable: {pattern!r} matches no {what} of the diffusion module", hint
            )
        chosen.update(matched)
    return chosen


def count_parameters(state: StateDict) -> int:
    """Return the number of weights."""
    return sum(value.numel() for value in state.values())


def trunk_fingerprint(state: StateDict) -> str:
    """Return a fingerprint of all weights that a fine-tuning run leaves alone.

    Checkpoints with the same trunk share their embeddings.
    """
    return _fingerprint(state, diffusion=False)


def start_fingerprints(state: StateDict) -> dict[str, str]:
    """Return fingerprints of what a run starts from: the `trunk`, the `diffusion module`."""
    return {
        "trunk": trunk_fingerprint(state),
        "diffusion module": _fingerprint(state, diffusion=True),
    }


def _fingerprint(state: StateDict, *, diffusion: bool) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        if key.startswith(DIFFUSION_PREFIX) == diffusion:
            digest.update(key.encode())
            digest.update(state[key].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def with_depth(state: StateDict, n_blocks: int) -> StateDict:
    """Return weights of the same function with a deeper diffusion transformer.

    A block whose two residual branches end in zeros adds nothing, exactly. So a model trained with
    few blocks can be given the depth of a stock model, whose command then loads it strictly. The
    added blocks are copies of the last one but for these zeros, and can be trained further.

    Args:
        state: Weights of the whole model.
        n_blocks: Blocks wanted, at least as many as there are.

    Raises:
        UserError: The model has more blocks, or is no Protenix.
    """
    found = [match for match in map(_BLOCK.match, state) if match]
    if not found:
        raise UserError(
            f"the checkpoint has no diffusion transformer: its {len(state)} weights are "
            f"{', '.join(sorted(state)[:3]) or 'none'} ...",
            "give a checkpoint of Protenix",
        )
    depth = 1 + max(int(match[2]) for match in found)
    if depth > n_blocks:
        raise UserError(
            f"the checkpoint's diffusion transformer has {depth} blocks, {n_blocks} are wanted",
            "choose a model_name with at least as many blocks",
        )
    deeper = dict(state)
    last = [match for match in found if int(match[2]) == depth - 1]
    for index in range(depth, n_blocks):
        for match in last:
            value = state[match[0]]
            copy = torch.zeros_like(value) if match[3] in _BRANCH_OUTPUTS else value.clone()
            deeper[f"{match[1]}{index}.{match[3]}"] = copy
    return deeper
