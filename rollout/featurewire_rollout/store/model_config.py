"""Parse `models.config`, and edit the entry of one model in its text.

The rest of the text, including comments and other models, stays unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import text_encoding, text_format

from featurewire._tfs.model_server_config_pb2 import ModelConfig, ModelServerConfig
from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.errors import ConfigFileError
from featurewire_rollout.store.text_edit import Field, fields

_OURS = ("model_version_policy", "version_labels")


def parse(text: str, name: str) -> ModelServerConfig:
    """Parse a config; `name` is its name in errors. Raises `ConfigFileError`."""
    config = ModelServerConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        line = f":{error.GetLine()}" if error.GetLine() else ""
        reason = " ".join(str(error).split(" : ", 1)[-1].split())
        raise ConfigFileError(
            f"{name}{line}: not a ModelServerConfig: {reason}; fix it by hand, nothing was changed"
        ) from error
    if config.WhichOneof("config") is None:
        raise ConfigFileError(f"{name} has no model_config_list; nothing was changed")
    return config


def entry_of(config: ModelServerConfig, model: str, name: str) -> Entry:
    """The entry of `model`. Raises `ConfigFileError`."""
    found = _model(config, model, name)
    policy = found.model_version_policy
    choice = policy.WhichOneof("policy_choice") or "latest"
    return Entry(
        versions=tuple(sorted({*policy.specific.versions})) if choice == "specific" else None,
        labels=dict(sorted(found.version_labels.items())),
        policy=choice,
        base_path=found.base_path,
    )


def edit(
    text: str, model: str, *, versions: Sequence[int], labels: Mapping[str, int], name: str
) -> str:
    """Replace the policy and the labels of `model` in `text`.

    Raises `ConfigFileError`.
    """
    wanted = parse(text, name)
    entry = _model(wanted, model, name)
    entry.ClearField("model_version_policy")
    entry.ClearField("version_labels")
    entry.model_version_policy.specific.versions.extend(sorted(versions))
    for label, version in labels.items():
        entry.version_labels[label] = version
    try:
        edited = _spliced(text, model, versions, labels)
        if parse(edited, name) == wanted:
            return edited
    except (ValueError, ConfigFileError):
        pass
    # The layout is unusual (a list of models in brackets): print all of it, without comments.
    return text_format.MessageToString(wanted)


def _model(config: ModelServerConfig, model: str, name: str) -> ModelConfig:
    found = [each for each in config.model_config_list.config if each.name == model]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigFileError(f"{name} lists model {model} {len(found)} times; keep one of them")
    listed = ", ".join(each.name for each in config.model_config_list.config) or "none"
    raise ConfigFileError(f"{name} has no model {model}; it has: {listed}")


def _spliced(text: str, model: str, versions: Sequence[int], labels: Mapping[str, int]) -> str:
    body = _body_of(text, model)
    inside = fields(text, *body)
    ours = [each for each in inside if each.name in _OURS]
    last = ours[0].start if ours else inside[-1].end
    indent = _indent(text, inside[0].start)
    lines = [
        "model_version_policy { specific { "
        + " ".join(f"versions: {version}" for version in sorted(versions))
        + " } }"
    ]
    lines += [
        f"version_labels {{ key: {_quoted(label)} value: {version} }}"
        for label, version in sorted(labels.items())
    ]
    new = f"\n{indent}".join(lines)
    if not ours:
        new = f"\n{indent}{new}"
    pieces, at = [text[:last], new], last
    for each in ours:
        if each is not ours[0]:
            pieces.append(text[at : _line_start(text, each.start, at)])
        at = each.end
    return "".join(pieces) + text[at:]


def _body_of(text: str, model: str) -> tuple[int, int]:
    for outer in fields(text):
        if outer.name != "model_config_list" or outer.body is None:
            continue
        for each in fields(text, *outer.body):
            if each.name == "config" and each.body and _name(text, each) == model:
                return each.body
    raise ValueError(f"no block of {model}")


def _name(text: str, block: Field) -> str:
    parsed = ModelConfig()
    assert block.body is not None
    text_format.Parse(text[slice(*block.body)], parsed)
    return parsed.name


def _indent(text: str, at: int) -> str:
    before = text[text.rfind("\n", 0, at) + 1 : at]
    return before if before.isspace() else "    "


def _line_start(text: str, at: int, floor: int) -> int:
    """Start of the white space before `at`, including the line break."""
    while at > floor and text[at - 1] in " \t":
        at -= 1
    return at - 1 if at > floor and text[at - 1] == "\n" else at


def _quoted(label: str) -> str:
    return '"' + str(text_encoding.CEscape(label.encode(), as_utf8=True)) + '"'
