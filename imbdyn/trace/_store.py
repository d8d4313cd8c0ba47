"""Where a trace lies: a local folder, or a place in an object store or HDFS that is named by a URI."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from imbdyn.trace.run_file import TraceError

#: Two letters at least and two slashes: "C:\\runs", "C:/runs" and "s3:runs" are local paths.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: What pathlib makes of a URI, which has lost a slash.
_URI_AS_PATH = re.compile(r"(s3|gs|gcs|hdfs|viewfs|abfss?|file):/[^/]")
#: The options that an S3 URI may carry; none of them is a secret.
_S3_OPTIONS = ("region", "scheme", "endpoint_override", "allow_bucket_creation", "force_virtual_addressing")
#: The options of other URIs that are no secrets.
_OPTIONS = (*_S3_OPTIONS, "retry_limit_seconds", "replication", "buffer_size", "default_block_size", "enable_tls")

#: Seconds after which a connection that is not made, or an answer that does not come, counts as a failure.
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 30.0
#: A request to S3 that fails is made so often before it is an error.
REQUEST_ATTEMPTS = 3


def is_uri(place: str | os.PathLike[str]) -> bool:
    """Whether `place` is a URI; a path object never is, and neither are "C:\\\\runs" and "s3:runs"."""
    return isinstance(place, str) and _URI.match(place) is not None


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether `place` is a URI of anything but a local folder."""
    return is_uri(place) and not str(place).lower().startswith("file://")


def filesystem_of(place: str | os.PathLike[str], attempts: int | None = None) -> tuple[fs.FileSystem, str]:
    """Return the filesystem that holds `place`, a local path or a URI, and the path of `place` in it.

    Nothing is sent yet, except that the region of an S3 bucket is asked for if the URI names neither region nor
    endpoint. A request to S3 is made `attempts` times at most (REQUEST_ATTEMPTS), and gives a silent server up after
    CONNECT_SECONDS or ANSWER_SECONDS.

    Raises: TraceError for a URI that cannot be understood, a filesystem that is not installed, or a pathlib.Path that
        was made from a URI.
    """
    text = os.fspath(place)
    if not is_uri(place):
        if not isinstance(place, str) and _URI_AS_PATH.match(text):
            raise TraceError(f"{text} is a URI that a path object has cut a slash from: give it as a str")
        return fs.LocalFileSystem(), str(Path(text).absolute())
    try:
        return _s3(text, attempts or REQUEST_ATTEMPTS) if text.lower().startswith("s3://") else _from_uri(text)
    except (pa.ArrowException, ValueError, OSError, ImportError) as error:
        raise TraceError(f"{public_uri(text)} cannot be opened: {_without_secrets(text, str(error))}") from None


def below(place: str | os.PathLike[str], name: str) -> str | Path:
    """Return the place of that name in the folder `place`, which is a path or a URI."""
    if not is_uri(place):
        return Path(place, name)
    parts = urlsplit(str(place))
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))


def exists(place: str | os.PathLike[str]) -> bool:
    """Whether anything is at `place`, a path or a URI. Raises: as filesystem_of; OSError if a store does not answer."""
    filesystem, path = filesystem_of(place)
    return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def shown(place: str | os.PathLike[str]) -> str:
    """Return what messages call `place`: a path as it is, a URI without its secrets."""
    return public_uri(str(place)) if is_uri(place) else os.fspath(place)


def public_uri(uri: str) -> str:
    """Return `uri` without what may be secret: user, password, fragment and every option not known to be harmless.

    In Azure's abfs URIs the user is the name of the container, and stays.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # where it cannot be told what is secret, nothing is shown
        return f"{uri.partition('://')[0]}://..."
    user, at, host = parts.netloc.rpartition("@")
    if at and parts.scheme.startswith("abfs"):
        host = f"{user.partition(':')[0]}@{host}"
    options = sorted(option for option in parse_qsl(parts.query) if option[0] in _OPTIONS)
    query = urlencode(options, quote_via=quote, safe=":/")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}{'?' * bool(query)}{query}"


def _from_uri(uri: str) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(uri)
    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parts.query:
        # Arrow goes on trying for 15 minutes, which would hold up the start and the end of a run.
        query = urlencode([*parse_qsl(parts.query), ("retry_limit_seconds", str(int(ANSWER_SECONDS)))])
        uri = urlunsplit(parts._replace(query=query))
    filesystem, path = fs.FileSystem.from_uri(uri)
    return filesystem, str(path).rstrip("/")


def _s3(uri: str, attempts: int) -> tuple[fs.FileSystem, str]:
    """As FileSystem.from_uri, which cannot set time limits and tries a refused connection for six seconds."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    unknown = sorted(options.keys() - set(_S3_OPTIONS))
    if unknown:
        raise ValueError(f"an S3 URI takes the options {', '.join(_S3_OPTIONS)}, not {', '.join(unknown)}")
    user, _, bucket = parts.netloc.rpartition("@")
    if not bucket:
        raise ValueError("an S3 URI names a bucket: s3://BUCKET/PATH")
    access, _, secret = user.partition(":")
    if "region" not in options and "endpoint_override" not in options:
        options["region"] = fs.resolve_s3_region(bucket)
    flags = {name: options.pop(name) == "true" for name in _S3_OPTIONS[3:] if name in options}
    filesystem = fs.S3FileSystem(
        access_key=unquote(access) or None,
        secret_key=unquote(secret) or None,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ANSWER_SECONDS,
        allow_delayed_open=True,  # one request for a small file instead of three
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        **options,
        **flags,
    )
    return filesystem, bucket + unquote(parts.path).rstrip("/")


def _without_secrets(uri: str, message: str) -> str:
    """Return the first line of an error's message, with the URI's public form in place of the URI."""
    message = message.replace(uri, public_uri(uri)).partition("\n")[0]
    userinfo = re.search(r"//([^/]*)@", uri)
    return message.replace(f"{userinfo[1]}@", "***@") if userinfo else message
