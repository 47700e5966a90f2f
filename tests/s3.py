"""A local S3 server (moto) for tests: what fsspec reads of the environment points to it."""

import contextlib
import logging
from collections.abc import Iterator

import boto3
import fsspec
import pytest
from fsspec.config import conf
from moto.server import ThreadedMotoServer

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}


class Server:
    """Can be stopped and started again at the same address, with what it holds."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


@contextlib.contextmanager
def served(bucket: str = "bench") -> Iterator[Server]:
    """A server with an empty bucket, which s3:// URIs mean in this process and in those that it starts."""
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**SETTINGS, "FSSPEC_S3_ENDPOINT_URL": server.url}.items():
            patch.setenv(key, value)
        patch.setitem(conf, "s3", {"endpoint_url": server.url})
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        boto3.client("s3", endpoint_url=server.url).create_bucket(Bucket=bucket)
        try:
            yield server
        finally:
            with contextlib.suppress(Exception):
                server.stop()
            fsspec.get_filesystem_class("s3").clear_instance_cache()
