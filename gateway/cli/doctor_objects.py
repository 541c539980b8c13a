"""The doctor's look at object storage: whether a body could be kept there, read again and removed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from gateway.cli.doctor_checks import Finding, Status
from gateway.config.model import Settings
from gateway.errors import StoreError
from gateway.store.blob_objects import BlobObjects, open_bucket

__all__ = ["objects"]


def objects(settings: Settings) -> Iterator[Finding]:
    """One small object goes there, comes back and is removed again; nothing where bodies are files."""
    bucket = settings.store.bucket
    if bucket is None:
        return
    remedy = f"look at {bucket}, the way to it, the credentials under store.s3, and what they may do"
    try:
        place = BlobObjects(open_bucket(bucket, settings.store.s3), "doctor")
        try:
            yield _try_out(place, str(bucket), remedy)
        finally:
            place.close()
    except StoreError as error:
        yield Finding("object_storage", Status.BAD, str(error), remedy)


def _try_out(place: BlobObjects, bucket: str, remedy: str) -> Finding:
    name, content = str(uuid.uuid4()), b"gateway doctor\n"
    writer = place.create(name)
    writer.write(content)
    writer.commit()
    reader = place.open(name, len(content))
    found = b"".join(iter(reader.read, b""))
    reader.close()
    place.abandon(name)
    try:
        place.open(name, 1).read()
    except StoreError:
        pass  # gone, as it should be
    else:
        detail = f"{bucket}: an object cannot be removed: deleted mail would stay there, without its key"
        return Finding("object_storage", Status.WARNING, detail, "allow s3:DeleteObject and s3:ListBucket")
    if found != content:
        return Finding("object_storage", Status.BAD, f"{bucket} gives back something else than it was given", remedy)
    return Finding("object_storage", Status.OK, f"{bucket}: an object can be kept, read, listed and removed")
