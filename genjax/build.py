"""From a config to the objects it names. Every key is checked here, before anything is compiled."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from genjax.data import augment, sources
from genjax.data.base import Source, in_memory
from genjax.evaluators import EVALUATORS
from genjax.families import FAMILIES, Entry
from genjax.families.base import Family, Optimizer
from genjax.train.divergence import Divergence
from genjax.train.duration import to_steps
from genjax.train.optim import OPTIMIZERS
from genjax.train.plan import Experiment, Scheduled
from genjax.types import UserError, lookup

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
_SCALARS = (bool, int, float, str, tuple)


def experiment(config: Mapping[str, Any], splits: tuple[Source, Source] | None = None) -> Experiment:
    """Builds all that ``config`` names.

    Args:
      config: of a run.
      splits: ``data_splits`` of it, where they are there already.

    Raises:
      UserError: a key is unknown, missing, of the wrong type, or names something that does not exist.
    """
    config = dict(to_plain(config))
    check_sections(config)
    train, test = splits or data_splits(config)
    augmentation = augment.augment(tuple(config["data"]["augment"]))
    entry = _family_entry(config["model"])
    slices = _call_known(entry.batches_per_step, options=config["model"])
    steps = {"examples_per_step": config["batch_size"] * slices, "train_size": len(train)}
    total = to_steps(config["total"], "total", **steps)
    model = family(config, train.spec, total)
    cadence = {**steps, "total_steps": total}
    kept = config["checkpoint"]["keep"]
    if model.examples_per_step != steps["examples_per_step"]:
        raise ValueError(
            f"{model.name} consumes {model.examples_per_step} examples a step, not {steps['examples_per_step']}"
        )
    return Experiment(
        config=config,
        family=model,
        train=train,
        test=test,
        augment=augmentation,
        evaluators=tuple(_evaluator(name, section, cadence) for name, section in config["evaluators"].items()),
        total_steps=total,
        log_every=to_steps(config["log_every"], "log_every", **cadence),
        checkpoint_every=to_steps(config["checkpoint"]["every"], "checkpoint.every", **cadence),
        keep_every=to_steps(kept, "checkpoint.keep", **cadence) if kept else None,
        divergence=construct("divergence", Divergence, config["divergence"]),
    )


def dynamic_settings(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings, dotted, that live in ``state.hparams``: members of a population may differ in them."""
    optim = config["optim"]
    parts = ["optim"] if "name" in optim else [f"optim.{network}" for network in optim]
    rates = [f"{part}.learning_rate" for part in parts]
    entry = _family_entry(config["model"])
    return ("seed", *rates, *(f"model.{name}" for name in _call_known(entry.hparams, options=config["model"])))


def with_sampling(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with other values for settings that act on sampling alone, so that a trained state fits as before.

    A section that gets another name keeps the settings that what it names now takes too, and loses the others.

    Args:
      config: of a run, checked.
      settings: values by dotted name, ``{"model.sampler.num_steps": 4}``. ``family`` checks most of them.

    Raises:
      UserError: training depends on a setting, or it is a whole section, or names nothing.
    """
    entry = _family_entry(config["model"])
    model = dict(config["model"])
    known = [f"model.{name}" + (".SETTING" if name in entry.parts else "") for name in entry.sampling]
    accepted = ", ".join(known) or f"none, a {model['family']} has no setting that acts on sampling alone"
    # Names first: they decide which other settings there are.
    for name in sorted(settings, key=lambda name: not name.endswith(".name")):
        top, _, path = name.partition(".")
        part, _, key = path.partition(".")
        if top != "model" or part not in entry.sampling or bool(key) != (part in entry.parts):
            raise UserError(f"--set={name}: not to be set on a trained run; accepted: {accepted}")
        if key == "name":
            _check_type(name, settings[name], str)
            taken = inspect.signature(lookup(entry.parts[part], settings[name], name)).parameters
            kept = {k: v for k, v in model.get(part, {}).items() if k in taken and k != "name"}
            model[part] = {"name": settings[name], **kept}
        else:
            model[part] = {**model.get(part, {}), key: settings[name]} if key else settings[name]
    return {**config, "model": model}


def data_splits(config: Mapping[str, Any]) -> tuple[Source, Source]:
    """The training and test split the config names, in memory where they fit its budget."""
    data = config["data"]
    constructor = lookup(sources.SOURCES, data["source"], "data.source")
    check_arguments("data.options", constructor, data["options"], supplied=("split",))
    budget = config["accelerator"]["memory_budget_mb"] * 2**20
    train, test = (in_memory(constructor(split=data[s], **data["options"]), budget) for s in ("train", "test"))
    if train.spec.shape != test.spec.shape:
        raise UserError(f"data: train images are {train.spec.shape} and test images {test.spec.shape}; they must agree")
    if train.spec.classes < test.spec.classes:
        raise UserError(
            f"data: the test split has {test.spec.classes} classes and the training split only {train.spec.classes}"
        )
    return train, dataclasses.replace(test, spec=train.spec)


def family(config: Mapping[str, Any], spec: Any, total_steps: int) -> Family:
    """The family the config names, for images of ``spec``."""
    model = dict(config["model"])
    entry = _family_entry(model)
    del model["family"]
    accelerator = config["accelerator"]
    accumulation = accelerator["accumulation"]
    if accumulation > 1 and "accumulation" not in inspect.signature(entry.constructor).parameters:
        raise UserError(f"accelerator.accumulation={accumulation}: this family does not accumulate; accepted: 1")
    if config["batch_size"] % accumulation:
        raise UserError(f"batch_size={config['batch_size']} is no multiple of accelerator.accumulation={accumulation}")
    slice_size = config["batch_size"] // accumulation
    supplied: dict[str, Any] = {"spec": spec, "slice_size": slice_size, "accumulation": accumulation}
    supplied |= _optimizers(config["optim"], entry.constructor, total_steps)
    arguments = _call_known(entry.network_arguments, spec, options=model)
    arguments["dtype"] = lookup(_DTYPES, accelerator["compute_dtype"], "accelerator.compute_dtype")
    check_arguments(
        "model",
        entry.constructor,
        {k: v for k, v in model.items() if k not in entry.networks and k not in entry.parts},
        tuple(supplied) + tuple(entry.networks) + tuple(entry.parts),
    )
    for name, table in entry.networks.items():
        if name not in model:
            raise UserError(f"model.{name} is missing; it names a network, one of {', '.join(sorted(table))}")
        supplied[name] = named(f"model.{name}", table, model.pop(name), **arguments)
    for name, table in entry.parts.items():
        if name in model:
            supplied[name] = named(f"model.{name}", table, model.pop(name), total_steps=total_steps)
        elif inspect.signature(entry.constructor).parameters[name].default is inspect.Parameter.empty:
            raise UserError(f"model.{name} is missing; it has a name, one of {', '.join(sorted(table))}")
    result = construct("model", entry.constructor, model, **supplied)
    return dataclasses.replace(result, sampling=_sampling(entry, config["model"]))


def _sampling(entry: Entry, model: Mapping[str, Any]) -> dict[str, Any]:
    """``Family.sampling`` of a checked section: whether a default is stated or left out makes no difference."""

    def stated(constructor: Callable, section: Mapping[str, Any]) -> dict[str, Any]:
        defaults = {name: p.default for name, p in inspect.signature(constructor).parameters.items()}
        return {name: value for name, value in defaults.items() if isinstance(value, _SCALARS)} | dict(section)

    def recorded(value: Any) -> Any:  # JSON has neither tuples nor infinity
        if isinstance(value, Mapping):
            return {key: recorded(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [recorded(item) for item in value]
        return value if not isinstance(value, float) or math.isfinite(value) else str(value)

    settings = stated(entry.constructor, model)
    chosen = {name: settings[name] for name in entry.sampling if name in settings}
    for name, table in entry.parts.items():
        if name in chosen:
            chosen[name] = stated(table[chosen[name]["name"]], chosen[name])
    return recorded(chosen)


def _family_entry(model: Mapping[str, Any]) -> Entry:
    if "family" not in model:
        raise UserError(f"model.family is missing; accepted: {', '.join(sorted(FAMILIES))}")
    return lookup(FAMILIES, model["family"], "model.family")


def _call_known(function: Callable, *args: Any, options: Mapping[str, Any]) -> Any:
    """``function`` with those of the model's options that it names."""
    hints = typing.get_type_hints(function)
    known = {name: options[name] for name in inspect.signature(function).parameters if name in options}
    for name, value in known.items():
        _check_type(f"model.{name}", value, hints[name])
    return function(*args, **known)


def _optimizers(section: Mapping[str, Any], family: Callable, total_steps: int) -> dict[str, Optimizer]:
    """``{"optimizer": ...}`` of one section, or ``{"<network>_optimizer": ...}`` of a section for each network."""
    networks = [name.removesuffix("_optimizer") for name in inspect.signature(family).parameters if "optimizer" in name]
    if networks == ["optimizer"]:
        return {"optimizer": named("optim", OPTIMIZERS, section, total_steps=total_steps)}
    if set(section) != set(networks):
        raise UserError(
            f"optim has {', '.join(section) or 'nothing'}; accepted: a section for each of {', '.join(networks)}"
        )
    return {
        f"{network}_optimizer": named(f"optim.{network}", OPTIMIZERS, part, total_steps=total_steps)
        for network, part in section.items()
    }


def _evaluator(name: str, section: Mapping[str, Any], cadence: Mapping[str, int]) -> Scheduled:
    where = f"evaluators.{name}"
    section = dict(_section(where, section))
    if "every" not in section:
        raise UserError(f"{where}.every is missing; accepted: a duration such as '5 epochs', or 'end'")
    every = section.pop("every")
    _check_type(f"{where}.every", every, str)
    steps = None if every == "end" else to_steps(every, f"{where}.every", **cadence)
    return Scheduled(name, named(where, EVALUATORS, section), steps)


def _section(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is a {type(value).__name__}; accepted: a section")
    return value


def named(where: str, table: Mapping[str, Callable], section: Mapping[str, Any], **supplied: Any) -> Any:
    """Calls what ``section["name"]`` names in ``table`` with the section's other keys as arguments.

    ``supplied`` are arguments that do not come from the config; one the constructor does not take is left out.
    """
    if "name" not in _section(where, section):
        raise UserError(f"{where}.name is missing; accepted: {', '.join(sorted(table))}")
    options = {key: value for key, value in section.items() if key != "name"}
    return construct(where, lookup(table, section["name"], f"{where}.name"), options, **supplied)


def construct(where: str, constructor: Callable, options: Mapping[str, Any], **supplied: Any) -> Any:
    """``constructor(**options, **supplied)`` after checking names and types; its ``ValueError`` is the user's too."""
    parameters = inspect.signature(constructor).parameters
    supplied = {name: value for name, value in supplied.items() if name in parameters}
    check_arguments(where, constructor, options, tuple(supplied))
    try:
        return constructor(**options, **supplied)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def check_arguments(where: str, constructor: Callable, options: Mapping[str, Any], supplied: tuple[str, ...]) -> None:
    """Every option is an argument of ``constructor``, of its type, and none that has no default is missing."""
    parameters = inspect.signature(constructor).parameters
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    accepted = [
        name for name in parameters if name not in (*supplied, "parent", "name") or (name == "name" and name in options)
    ]
    for name, value in options.items():
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"{where}.{name} is no setting{hint}; accepted: {', '.join(accepted)}")
        _check_type(f"{where}.{name}", value, hints.get(name))
    for name in accepted:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            raise UserError(f"{where}.{name} is missing")


def _check_type(where: str, value: Any, hint: Any) -> None:
    """Numbers, strings and tuples by their annotation; whatever else is annotated is the constructor's to check."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [typing.get_origin(kind) or kind for kind in allowed]
    if not all(kind in _SCALARS or kind is type(None) for kind in kinds):
        return
    as_float = float in kinds and isinstance(value, int) and not isinstance(value, bool)
    exact = any(type(value) is kind for kind in kinds)
    if not exact and not as_float:
        wanted = " or ".join("none" if kind is type(None) else kind.__name__ for kind in kinds)
        raise UserError(f"{where}={value!r} is a {type(value).__name__}; accepted: {wanted}")


def to_plain(value: Any) -> Any:
    """Nested dicts, tuples and scalars, the same whether they come from a config file or from stored JSON."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(to_plain(item) for item in value)
    return value


def check_sections(config: Mapping[str, Any]) -> None:
    """The top-level keys, and those of the sections that are read key by key."""
    expected = {
        "": {
            "seed": int,
            "batch_size": int,
            "total": str,
            "log_every": str,
            "data": dict,
            "model": dict,
            "optim": dict,
            "evaluators": dict,
            "eval_batch_size": int,
            "checkpoint": dict,
            "divergence": dict,
            "accelerator": dict,
        },
        "data.": {"source": str, "train": str, "test": str, "augment": tuple, "options": dict},
        "checkpoint.": {"every": str, "keep": str, "best": str, "mode": str},
        "accelerator.": {
            "platform": str,
            "devices": int,
            "fsdp": int,
            "tensor": int,
            "compute_dtype": str,
            "deterministic": bool,
            "accumulation": int,
            "steps_per_call": int,
            "prefetch": int,
            "memory_budget_mb": int,
        },
    }
    for prefix, keys in expected.items():
        section = config[prefix[:-1]] if prefix else config
        for name in section:
            if name not in keys:
                raise UserError(f"{prefix}{name} is no setting; accepted: {', '.join(keys)}")
        for name, kind in keys.items():
            if name not in section:
                raise UserError(f"{prefix}{name} is missing")
            _check_type(f"{prefix}{name}", section[name], kind if kind is not dict else dict[str, Any])
            if kind is dict:
                _section(f"{prefix}{name}", section[name])
            if (
                kind is int
                and name != "devices"
                and section[name] < (lowest := 0 if name in ("seed", "prefetch", "memory_budget_mb") else 1)
            ):
                wanted = "a positive whole number" if lowest else "a whole number from 0"
                raise UserError(f"{prefix}{name}={section[name]} is too small; accepted: {wanted}")
    if config["seed"] >= 2**32:
        raise UserError(f"seed={config['seed']} is too large; accepted: 0 to {2**32 - 1}")
    if config["checkpoint"]["mode"] not in ("min", "max"):
        raise UserError(f"checkpoint.mode={config['checkpoint']['mode']!r} is unknown; accepted: max, min")
