"""A program that uses the public page; mypy and pyright read it, strictly, and nobody runs it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, assert_type

from registry_spooler import (
    Digest,
    FailedFile,
    ImageDescription,
    ImageResult,
    NotFound,
    Published,
    Receipt,
    Reference,
    SpoolerClient,
    SpoolerError,
    SpoolerStatus,
    __version__,
)


async def use(path: Path) -> None:
    async with SpoolerClient.connect(namespace="registry") as client:
        assert_type(client, SpoolerClient)
        receipt = await client.push(path, "catalog/app:v2")
        assert_type(receipt, Receipt)
        assert_type(receipt.image, ImageResult)
        assert_type(receipt.digest, Digest | None)
        assert_type(receipt.image.pull_reference, str)
        assert_type(await client.push(path, Reference.parse("catalog/app:v2")), Receipt)
        assert_type(await client.publish(path), Published)
        assert_type(await client.pull("catalog/app:v2", path, archive_format="oci"), int)
        assert_type(await client.repositories(), tuple[str, ...])
        assert_type(await client.images(), tuple[Reference, ...])
        description = await client.inspect("catalog/app:v2")
        assert_type(description, ImageDescription)
        assert_type(description.platforms[0].layers[0].digest, Digest)
        assert_type(description.document, dict[str, Any])
        status = await client.status()
        assert_type(status, SpoolerStatus)
        assert_type(status.is_ready, bool)
        for failed in await client.failed():
            assert_type(failed, FailedFile)
            assert_type(failed.time, datetime.datetime | None)
            await client.retry(failed.name)
        try:
            assert_type(await client.delete("catalog/app:v2"), Digest | None)
        except NotFound as error:
            assert_type(error.temporary, bool)
        except SpoolerError as error:
            assert_type(error.detail, str)
            version: str = __version__
            assert version
