"""Norms with two branches: clean and auxiliary (AdvProp, Xie et al. 2020), by composition."""

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

from torch import Tensor, nn

from ..errors import InputError, check_choice

Branch = Literal["clean", "auxiliary"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)

_TORCH_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class _InUse(threading.local):
    """Each thread has its own, so that no forward pass changes the branch of another."""

    def __init__(self) -> None:
        self.branch: Branch = "clean"  # not of the class: torch.compile before 2.11 would always read that


_IN_USE = _InUse()


class TwoBranchNorm(nn.Module):
    """A norm and a copy of it, one for each branch; `using_branch` chooses between them.

    Attributes of the norm that it replaces stay reachable (`module.eps`, `module.weight`): of the branch in use.

    Args:
        norm: any module; it becomes the clean branch, and a copy of it the auxiliary branch.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.clean = norm
        self.auxiliary = copy.deepcopy(norm)

    @property
    def branch(self) -> Branch:
        """The branch in use in the calling thread."""
        return _IN_USE.branch

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the norm in use."""
        return self.clean(*args, **kwargs) if self.branch == "clean" else self.auxiliary(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__(self.branch), name)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: a norm of torch's, or one called so that holds nothing but vectors.

    The second rule finds the norms that models bring along (RMS norms, norms that also activate) without a list.
    """
    if isinstance(module, _TORCH_NORMS):
        return True
    tensors = [*module.parameters(), *module.buffers()]
    return "norm" in type(module).__name__.lower() and bool(tensors) and all(tensor.ndim <= 1 for tensor in tensors)


def split_norms(model: nn.Module, skip: Iterable[nn.Module] = ()) -> None:
    """Gives every norm of a model a second branch, in place.

    Args:
        model: the model.
        skip: modules that are left alone with everything in them, such as those of the stem.
    """
    skipped = {id(module) for root in skip for module in root.modules()}
    doubled: dict[nn.Module, TwoBranchNorm] = {}  # a norm that stands in several places stays one norm
    for path, module in _outermost_norms(model, skipped):
        if module not in doubled:
            doubled[module] = TwoBranchNorm(module)
        _set_module(model, path, doubled[module])


def two_branch_norms(model: nn.Module) -> dict[str, TwoBranchNorm]:
    """The two-branch norms of a model by module path, each under every path that it has."""
    modules = model.named_modules(remove_duplicate=False)
    return {path: module for path, module in modules if isinstance(module, TwoBranchNorm)}


@contextmanager
def using_branch(branch: Branch) -> Iterator[None]:
    """Has all two-branch norms that this thread runs within the block compute in one branch.

    Raises:
        InputError: if there is no such branch.
    """
    _check_branch(branch)
    before = _IN_USE.branch
    _IN_USE.branch = branch
    try:
        yield
    finally:
        _IN_USE.branch = before


def plain_model(model: nn.Module, branch: Branch) -> nn.Module:
    """A model with one branch's norms in the place of the two-branch norms. It shares all else with the given one.

    Raises:
        InputError: if there is no such branch.
    """
    _check_branch(branch)
    plain: dict[nn.Module, nn.Module] = {}  # a module that stands in several places stays one module

    def of_branch(module: nn.Module) -> nn.Module:
        if isinstance(module, TwoBranchNorm):
            return getattr(module, branch)
        if module not in plain:
            children = {name: child if child is None else of_branch(child) for name, child in module._modules.items()}
            plain[module] = module
            if any(child is not module._modules[name] for name, child in children.items()):
                plain[module] = copy.copy(module)
                plain[module]._modules = children
        return plain[module]

    return of_branch(model)


def branch_state(model: nn.Module, state_dict: Mapping[str, Tensor], branch: Branch) -> dict[str, Tensor]:
    """The weights and running statistics of one branch, by their names in `plain_model`.

    Args:
        model: with two-branch norms.
        state_dict: of the model, or of a wrapper whose only part it is ("backbone.").
        branch: "clean" or "auxiliary".
    """
    norms = two_branch_norms(model)
    of_branch = {}
    for name, tensor in state_dict.items():
        path = name.removeprefix("backbone.")
        norm = next((norm for norm in norms if path.startswith(f"{norm}.")), None)
        if norm is not None:
            of_norm, _, rest = path.removeprefix(f"{norm}.").partition(".")
            if of_norm != branch:
                continue
            path = f"{norm}.{rest}"
        of_branch[path] = tensor
    return of_branch


def fewest_images(model: nn.Module) -> int:
    """How many images a branch needs in training: two where a batch norm takes their statistics, else one."""
    return 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()) else 1


def check_synchronizable(model: nn.Module) -> None:
    """Checks that `nn.SyncBatchNorm` can stand for all batch norms of a model.

    Raises:
        InputError: if a batch norm does more than torch's own, since it would lose that.
    """
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in plain:
            raise InputError(f"sync_batchnorm: {path} is a {type(module).__name__}, not a batch norm of torch's own")


def _check_branch(branch: str) -> None:
    check_choice("branch", branch, BRANCHES)


def _outermost_norms(model: nn.Module, skipped: set[int]) -> list[tuple[str, nn.Module]]:
    """Norms that lie in no other norm, so that a norm made of norms is doubled once."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules(remove_duplicate=False):
        inside = any(path.startswith(f"{outer}.") for outer, _ in found)
        if path and id(module) not in skipped and not inside and is_norm(module):
            found.append((path, module))
    return found


def _set_module(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
