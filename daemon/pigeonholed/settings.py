"""What the daemon may be told: every section, key, type and default of the configuration.

`config.load_settings` makes these from file, environment and flags; there every path is absolute. The description of
a field is the end of the sentence "must be ..." that a user reads after a mistake.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from pigeonholed import database_url
from pigeonholed.labels import fault_of
from pigeonholed.template import FIELDS_SHOWN
from pigeonholed.template import checked as checked_template

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9_-]{1,16}){1,2}")
_PORT = re.compile(r"[0-9]{1,5}")

MOST_PATH_BYTES = 4095  # PATH_MAX without its final NUL
_MOST_S = 1e9  # 30 years; a thread cannot wait for ten times that
_MOST = 1 << 53


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; port 0 lets the system pick one. `str()` of it reads `host:port` again."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`, an IPv6 host in brackets.

        Raises:
            ValueError: it is no such address; the message is the end of a sentence that begins with "must be".
        """
        host, colon, port = text.rpartition(":")
        if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError('"host:port" with a port from 0 to 65535')
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if not _is_ip(host, version=6):
                raise ValueError('"host:port" where brackets hold an IPv6 address')
        elif ":" in host:
            raise ValueError(f'"host:port" with an IPv6 host in brackets, such as "[::1]:{port}"')
        elif not host:
            raise ValueError(f'"host:port"; "0.0.0.0:{port}" stands for every address of this machine')
        elif not (_is_ip(host, version=4) or (_HOST_NAME.fullmatch(host) and not host.replace(".", "").isdigit())):
            raise ValueError('"host:port" where the host is a name or an address')
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host.lower().rstrip(".") == "localhost":
            return True
        return _is_ip(self.host) and ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_ip(host: str, version: int | None = None) -> bool:
    try:
        return version in (None, ipaddress.ip_address(host).version)
    except ValueError:
        return False


def _path(given: object) -> object:
    if not isinstance(given, str | Path) or not str(given) or "\0" in str(given):
        raise ValueError("a path")
    if len(os.fsencode(given)) > MOST_PATH_BYTES:
        raise ValueError(f"a path of at most {MOST_PATH_BYTES} bytes")
    return Path(given)


def _optional_path(given: object) -> object:
    return None if given in ("", None) else _path(given)


def _address(given: object) -> object:
    if isinstance(given, Address):
        return given
    if not isinstance(given, str):
        raise ValueError('"host:port"')
    return Address.parse(given)


def _optional_address(given: object) -> object:
    return None if given in ("", None) else _address(given)


def _folder_word(given: str) -> str:
    if fault := fault_of(given):
        raise ValueError(f"a name that can be a folder, but it {fault}")
    return given


def _pattern(given: str) -> str:
    if not given.strip("/") or "\0" in given or os.pardir in given.split("/"):
        raise ValueError('a list of patterns such as ["*.jpg"], relative to the inbox')
    return given


def _suffix(given: str) -> str:
    """An ending of names, in small letters; not one that would make our own `.reason.json` somebody's sidecar."""
    if not _SUFFIX.fullmatch(given) or given.lower() == ".reason.json":
        raise ValueError('a list of endings such as [".xmp"], each a dot and some letters, but not ".reason.json"')
    return given.lower()


def _argument(given: str) -> str:
    if not given or "\0" in given:
        raise ValueError("a list of a program and its arguments, none of them empty")
    return given


AnyPath = Annotated[Path, BeforeValidator(_path), Field(description="a path")]
OptionalPath = Annotated[Path | None, BeforeValidator(_optional_path), Field(description='a path, or "" for none')]
Listen = Annotated[InstanceOf[Address], BeforeValidator(_address), Field(description='"host:port"')]
OptionalListen = Annotated[
    InstanceOf[Address] | None, BeforeValidator(_optional_address), Field(description='"host:port", or "" for none')
]
Word = Annotated[str, AfterValidator(_folder_word), Field(description="a name that can be a folder")]
Seconds = Annotated[
    float, Field(ge=0, le=_MOST_S, allow_inf_nan=False, description="a number of seconds, 0 or more (and at most 1e9)")
]
Interval = Annotated[
    float, Field(gt=0, le=_MOST_S, allow_inf_nan=False, description="a number of seconds above 0 (and at most 1e9)")
]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=_MOST, description="a whole number, 1 or more (and at most 2^53)")]
Patterns = Annotated[
    tuple[Annotated[str, AfterValidator(_pattern)], ...],
    Field(strict=False, description='a list of patterns such as ["*.jpg"]'),
]


Suffixes = Annotated[
    tuple[Annotated[str, AfterValidator(_suffix)], ...],
    Field(strict=False, description='a list of endings such as [".xmp"]'),
]


class Section(BaseModel):
    """What the tables of the configuration have in common: immutable, exact in types, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())


class StateSettings(Section):
    """`[state]`: the folder of the state lock, and of whatever is not told to be elsewhere."""

    dir: AnyPath = Path()

    @property
    def lock_file(self) -> str:
        """Held by the process that serves, or by a command that stands in for it."""
        return os.fspath(self.dir / "pigeonholed.lock")


class DatabaseSettings(Section):
    """`[database]`."""

    url: Annotated[
        str, AfterValidator(database_url.checked), Field(description=f"a database URL: {database_url.ALLOWED}")
    ] = "sqlite:///pigeonholed.db"

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database, None for a server."""
        return database_url.file_of(self.url)


class ModelsSettings(Section):
    """`[models]`: the model store."""

    dir: AnyPath = Path("models")


class ControlSettings(Section):
    """`[control]`: the socket through which commands reach the daemon."""

    socket: AnyPath = Path("pigeonholed.sock")


class InboxSettings(Section):
    """`[[inbox]]`: one watched folder, the model that sorts it and where its pictures go.

    `output` is None only with `action = "none"`.
    """

    name: Word
    path: AnyPath
    create: bool = Field(default=False, description="true or false")
    output: OptionalPath = None
    model: Word = Field(description="the name of a model in the store")
    version: Literal["current"] | Count = Field(default="current", description='"current", or a whole number from 1 on')
    action: Literal["move", "copy", "none"] = "move"
    hostile: bool = Field(default=False, description="true or false")
    recursive: bool = Field(default=True, description="true or false")
    settle_s: Seconds = 5.0
    incomplete_s: Seconds = 60.0
    watch: Literal["auto", "events", "poll"] = "auto"
    rescan_s: Interval = 30.0
    template: Annotated[str, AfterValidator(checked_template), Field(description=f"a path made of {FIELDS_SHOWN}")] = (
        "{label}/{subdir}/{name}"
    )
    duplicates: Literal["sort", "set-aside"] = "sort"
    min_confidence: Literal["model"] | Share = Field(default="model", description='"model", or a number from 0 to 1')
    top_k: Count = 5
    truncated: Literal["reject", "classify"] = "reject"
    max_pixels: Count = 100_000_000
    max_bytes: Count = 500_000_000
    include: Patterns = Field(default=("*",), min_length=1)
    exclude: Patterns = ()
    sidecars: Suffixes = ()


class BatchingSettings(Section):
    """`[batching]`: how pictures are gathered for the model."""

    max_batch_size: int = Field(
        default=64, ge=1, le=100_000, description="a whole number, 1 or more (and at most 100000)"
    )
    max_wait_s: Seconds = 0.5
    decode_workers: int = Field(
        default=0, ge=0, le=1000, description="a whole number, 0 (one for each CPU) or more (and at most 1000)"
    )
    max_decode_s: Interval = 60.0


class RuntimeSettings(Section):
    """`[runtime]`: what executes the models."""

    kind: Literal["auto", "keras", "openvino"] = "auto"
    device: Literal["auto", "gpu", "cpu"] = "auto"
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"


class EngineSettings(Section):
    """`[engine]`: where decoding and classifying happen."""

    kind: Literal["local", "ray"] = "local"
    address: str = Field(default="auto", min_length=1, description='"auto", or the address of a cluster')


class MetricsSettings(Section):
    """`[metrics]`: the endpoint for Prometheus and probes, None when it is off."""

    listen: OptionalListen = Address("127.0.0.1", 9109)


class WebSettings(Section):
    """`[web]`: the review page."""

    listen: Listen = Address("127.0.0.1", 8109)
    token_file: OptionalPath = None


class HookSettings(Section):
    """`[hook]`: what is run after each batch; an empty command is none."""

    command: Annotated[
        tuple[Annotated[str, AfterValidator(_argument)], ...],
        Field(strict=False, description='a list of a program and its arguments, such as ["/usr/local/bin/tell", "-q"]'),
    ] = ()
    timeout_s: Interval = 30.0


class LogSettings(Section):
    """`[log]`."""

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Tables(Section):
    """What a configuration file may hold."""

    state: StateSettings = StateSettings()
    database: DatabaseSettings = DatabaseSettings()
    models: ModelsSettings = ModelsSettings()
    control: ControlSettings = ControlSettings()
    inbox: Annotated[tuple[InboxSettings, ...], Field(strict=False, description="tables [[inbox]]")] = ()
    batching: BatchingSettings = BatchingSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    engine: EngineSettings = EngineSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    hook: HookSettings = HookSettings()
    log: LogSettings = LogSettings()


class Settings(Tables):
    """The whole configuration; `source` is the file that it was read from."""

    source: Path | None = None
