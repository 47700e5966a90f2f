"""Compare sweeps over images on an object store with the same sweep over files of this machine.

    python benchmarks/storage.py [--json FILE] [--long]

The photographs are those of `plumage`, the network is AlexNet at 224², the degradation is Gaussian noise at the paper's
seven levels, and the store is a server of the S3 protocol in a process of its own on this machine, which shares its
cores. The figures are ratios of seconds, medians over rounds in which what is compared alternates:

`shards.ratio`: local files ÷ tar shards on the server. Every image is fetched by its range of bytes, neighbours in one
request, while the images before are computed. 1 means that the server costs nothing.
`objects.ratio`: local files ÷ an object for each image on the server.
`latency.ratio`: reading objects one after the other ÷ reading them ahead, as a sweep does, when each request takes
50 ms more. Nothing is computed, since that would hide the difference.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PORT = 53911
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
    "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
}
os.environ.update(SETTINGS)  # before fsspec reads them

import boto3  # noqa: E402
import pandas as pd  # noqa: E402
from pipeline import ALEXNET, make_checkpoint, make_sweep, time_sweep  # noqa: E402
from rich.console import Console  # noqa: E402

from cnnsens_bench import images  # noqa: E402
from cnnsens_bench.datasets import load  # noqa: E402
from cnnsens_bench.utils import reading  # noqa: E402

SERVER = """
from moto.server import ThreadedMotoServer
ThreadedMotoServer("127.0.0.1", {port}, verbose=False).start()
input()
"""
LATENCY = 0.05


def upload(table: pd.DataFrame, shards: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the images on the server, as objects and in shards; return the table of each."""
    client = boto3.client("s3", endpoint_url=SETTINGS["FSSPEC_S3_ENDPOINT_URL"])
    for _ in range(100):
        try:
            client.create_bucket(Bucket="bench")
            break
        except Exception:  # the server has not begun yet
            time.sleep(0.1)
    uris = []
    for number in range(shards):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for row in table.iloc[number::shards].itertuples():
                data = Path(row.uri).read_bytes()
                member = tarfile.TarInfo(f"{row.image_id.replace('/', '-')}.png")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
                uris.append(
                    (row.Index, f"s3://bench/{number}.tar#{archive.offset - -(-len(data) // 512) * 512}+{len(data)}")
                )
                client.put_object(Bucket="bench", Key=f"images/{row.image_id}", Body=data)
        client.put_object(Bucket="bench", Key=f"{number}.tar", Body=content.getvalue())
    objects = table.assign(uri="s3://bench/images/" + table["image_id"])
    positions, names = zip(*uris, strict=True)
    return objects, table.loc[list(positions)].assign(uri=names)


def read_all(uris: Iterable[str], ahead: bool) -> float:
    """Return the seconds of reading images, each with a request that is slow to begin."""
    uris, ask = list(uris), reading._read

    def slow(uri: str) -> bytes:
        time.sleep(LATENCY)
        return ask(uri)

    reading._read = slow
    began = time.perf_counter()
    try:
        if ahead:
            for read in images.read_ahead(uris):
                assert read()
        else:
            for uri in uris:
                assert reading.read_patiently(uri)
    finally:
        reading._read = ask
        images.stop_reading()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    parser.add_argument("--long", action="store_true", help="more images and rounds")
    arguments = parser.parse_args()
    count, rounds = (512, 5) if arguments.long else (96, 3)
    table = load("plumage", None, None, {}).split("test", "train").head(count)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(port=PORT)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        objects, shards = upload(table, 3)
        sweep, checkpoint = make_sweep(ALEXNET, ["gaussian_rgb"]), make_checkpoint(ALEXNET)
        forms = {"files": table, "shards": shards, "objects": objects}
        times: dict[str, list[float]] = {form: [] for form in forms}
        time_sweep(sweep, table.head(64), checkpoint)
        for _ in range(rounds):
            for form, some in forms.items():
                times[form].append(time_sweep(sweep, some, checkpoint))
        ratios = {
            form: statistics.median(a / b for a, b in zip(times["files"], times[form], strict=True))
            for form in ("shards", "objects")
        }
        few = objects["uri"].head(64)
        latency = statistics.median(read_all(few, ahead=False) / read_all(few, ahead=True) for _ in range(rounds))
    finally:
        server.kill()
    figures: dict[str, Any] = {form: {"ratio": round(ratio, 3)} for form, ratio in ratios.items()}
    figures["latency"] = {"ratio": round(latency, 1)}
    console = Console()
    console.print(f"local files ÷ shards on S3: {ratios['shards']:.3f}; ÷ objects on S3: {ratios['objects']:.3f}")
    console.print(f"one after the other ÷ read ahead, 50 ms a request: {latency:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
