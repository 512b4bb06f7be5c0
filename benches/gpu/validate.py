#!/usr/bin/env python3
"""Validates and measures the CUDA backend on one GPU in under ten minutes.

    cargo build --release --features cuda          # on any machine; the program finds the libraries at run time
    python3 benches/gpu/validate.py                # on the machine with the GPU; needs no network and no packages

1. Parity: transformer and VAE reference cases and the demo model, f32 and 16 bits, against the CPU of the same program.
2. Ranks: 1, 2 and 4 ranks on the GPU give the same bits without a ring, the same numbers up to rounding with one.
3. Times: forward, guided step and decode of 2b and 5b at 49x480x720 with weights of noise.
4. Peers: diffusers eager and torch.compile at the same sizes, where torch and diffusers can be imported.

Prints a table; --output writes it as JSON as well. Exits with 1 when a comparison fails. What does not fit the time is named.
NOTHING HERE HAS BEEN RUN ON A GPU YET.
"""
import argparse
import array
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
CONFIGS = ROOT / "models" / "configs"
# Relative L2 error that rounding may make against the CPU in f32.
LIMITS = {"f32": 1e-4, "f16": 5e-3, "bf16": 5e-2}
# Rounding of one ring against another order of blocks.
RING = 1e-5
# Latent frames, rows and columns of 49x480x720.
LATENTS = [13, 60, 90]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terrace", type=Path, default=ROOT / "target" / "release" / "terrace")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtypes", default="f32,bf16", help="of f32, f16 and bf16, with commas")
    parser.add_argument("--presets", default="2b,5b", help="of models/configs, with commas")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each")
    parser.add_argument("--seconds", type=int, default=570, help="time for everything")
    parser.add_argument("--output", type=Path, help="file for the results as JSON")
    return parser.parse_args()


class Report:
    """Rows of the table, and whether all comparisons held."""

    def __init__(self, seconds):
        self.rows, self.sound, self.end = [], True, time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()

    def add(self, what, value, note="", sound=True):
        self.rows.append({"what": what, "value": value, "note": note, "sound": sound})
        self.sound &= sound
        print(f"{'' if sound else 'FAILED '}{what:52} {value:>14}  {note}", flush=True)

    def step(self, what, work):
        """Runs one measurement; what goes wrong in it is its result."""
        if self.left() < 5:
            self.add(what, "left out", "no time")
            return None
        try:
            return work()
        except subprocess.TimeoutExpired:
            self.add(what, "left out", "no time")
        except subprocess.CalledProcessError as problem:
            lines = (problem.stderr or "").strip().splitlines() or [f"exit code {problem.returncode}"]
            self.add(what, "error", lines[-1], sound=False)
        except Exception as problem:  # The others still have something to say.
            self.add(what, "error", str(problem).strip().splitlines()[0], sound=False)
        return None


class Terrace:
    def __init__(self, args, report):
        self.args, self.report = args, report

    def call(self, *words):
        command = [str(word) for word in (self.args.terrace, *words)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=self.report.left())
        return done.stdout

    def bench(self, *words):
        return json.loads(self.call("bench", *words, "--runs", self.args.runs, "--json"))


def write_tensors(path, tensors):
    """Normal noise of the given shapes, as a safetensors file."""
    header, data = {}, bytearray()
    for name, (shape, values) in tensors.items():
        begin = len(data)
        data += array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_tensor(path):
    """The numbers of a file with one f32 tensor."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    (entry,) = [entry for name, entry in header.items() if name != "__metadata__"]
    begin, end = entry["data_offsets"]
    return array.array("f", content[8 + length:][begin:end])


def error(found, expected):
    if len(found) != len(expected):
        return math.inf
    wrong = math.fsum((x - y) ** 2 for x, y in zip(found, expected))
    wrong = math.sqrt(wrong / max(math.fsum(y * y for y in expected), 1e-30))
    return wrong if math.isfinite(wrong) else math.inf


def noise(seed, *shape):
    source = random.Random(seed)
    return list(shape), [source.gauss(0, 1) for _ in range(math.prod(shape))]


def transformer_inputs(config):
    frames = (config["sample_frames"] - 1) // config["temporal_compression_ratio"] + 1
    frames += -frames % (config.get("patch_size_t") or 1)
    sizes = frames, config["in_channels"], config["sample_height"], config["sample_width"]
    inputs = {
        "hidden_states": noise(1, 1, *sizes),
        "encoder_hidden_states": noise(2, 1, config["max_text_seq_length"], config["text_embed_dim"]),
        "timestep": ([1], [500.0]),
    }
    if config.get("ofs_embed_dim"):
        inputs["ofs"] = [1], [2.0]
    return inputs


def parts(folder):
    """Every part to compare: its name, command, and where its output goes."""
    for case in sorted(GOLDENS.iterdir()):
        config = case / "transformer" / "config.json"
        if config.is_file():
            inputs = folder / f"{case.name}.safetensors"
            write_tensors(inputs, transformer_inputs(json.loads(config.read_text())))
            yield f"forward {case.name}", ["forward", "--model", case, "--inputs", inputs]
        config = case / "vae" / "config.json"
        if config.is_file():
            latents = folder / f"{case.name}.safetensors"
            channels = json.loads(config.read_text())["latent_channels"]
            write_tensors(latents, {"latents": noise(3, 1, 3, channels, 6, 8)})
            yield f"decode {case.name}", ["decode", "--model", case, "--latents", latents]
    yield "encode-text demo", ["encode-text", "--prompt", "a red circle moving right on a black background"]


def parity(terrace, report, folder):
    for name, command in parts(folder):
        expected, found = folder / "cpu.safetensors", folder / "gpu.safetensors"

        def compare(dtype):
            terrace.call(*command, "--output", found, "--device", terrace.args.device, "--dtype", dtype)
            wrong = error(read_tensor(found), read_tensor(expected))
            report.add(f"{name} {dtype}", f"{wrong:.1e}", f"at most {LIMITS[dtype]:.0e}", wrong <= LIMITS[dtype])

        if report.step(name, lambda: terrace.call(*command, "--output", expected)) is not None:
            for dtype in terrace.args.dtypes.split(","):
                report.step(f"{name} {dtype}", lambda: compare(dtype))


def ranks(terrace, report, folder):
    """The same bits on every cut without a ring."""
    case = GOLDENS / "five-heads"
    inputs = folder / "ranks.safetensors"
    write_tensors(inputs, transformer_inputs(json.loads((case / "transformer" / "config.json").read_text())))

    def run(ulysses, ring, dtype):
        output = folder / f"{ulysses}-{ring}.safetensors"
        terrace.call("forward", "--model", case, "--inputs", inputs, "--output", output, "--dtype", dtype,
                     "--device", terrace.args.device, "--num-gpus", ulysses * ring,
                     "--ulysses-degree", ulysses, "--ring-degree", ring)
        return read_tensor(output)

    for dtype in terrace.args.dtypes.split(","):
        one = report.step(f"1 rank {dtype}", lambda: run(1, 1, dtype))
        if one is None:
            continue
        for ulysses in (2, 4):
            name = f"{ulysses} ranks, ulysses, {dtype}"
            same = report.step(name, lambda: run(ulysses, 1, dtype) == one)
            if same is not None:
                report.add(name, "same bits" if same else "differs", sound=same)
        for ulysses, ring in ((1, 2), (2, 2)):
            name = f"{ulysses * ring} ranks, ring {ring}, {dtype}"
            wrong = report.step(name, lambda: error(run(ulysses, ring, dtype), one))
            if wrong is not None:
                limit = RING if dtype == "f32" else LIMITS[dtype]
                report.add(name, f"{wrong:.1e}", f"at most {limit:.0e}", wrong <= limit)


def times(terrace, report):
    """Seconds and TFLOP/s of what is measured, weights being noise."""
    device = ["--device", terrace.args.device, "--dtype", "bf16"]

    def measure(name, *words):
        found = report.step(name, lambda: terrace.bench(*words, *device))
        if found is not None:
            seconds = found["median_seconds"]
            report.add(name, f"{seconds:.3f} s", f"{found['flops'] / seconds / 1e12:.0f} TFLOP/s")

    latents = ["--latent-frames", LATENTS[0], "--latent-height", LATENTS[1], "--latent-width", LATENTS[2]]
    measure("decode 49x480x720", "decode", *latents)
    for preset in terrace.args.presets.split(","):
        config = json.loads((CONFIGS / f"transformer-{preset}.json").read_text())
        size = ["--preset", preset, "--layers", config["num_layers"], "--num-frames", 49]
        measure(f"forward {preset} 49x480x720", "forward", *size)
        for count in (1, 2, 4):
            measure(f"guided step {preset} 49x480x720, {count} ranks", "step", *size, "--num-gpus", count)


def peers(terrace, report):
    """diffusers at the same sizes, in this process."""
    import torch
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    def seconds(function):
        function()
        torch.cuda.synchronize()
        taken = []
        for _ in range(terrace.args.runs):
            begun = time.perf_counter()
            function()
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - begun)
        return sorted(taken)[len(taken) // 2]

    def model(kind, file):
        with torch.device("cuda"):
            config = json.loads((CONFIGS / file).read_text())
            return kind.from_config(config).to(torch.bfloat16).eval(), config

    def step(preset):
        transformer, config = model(CogVideoXTransformer3DModel, f"transformer-{preset}.json")
        frames, height, width = LATENTS
        half = {"device": "cuda", "dtype": torch.bfloat16}
        inputs = {
            "hidden_states": torch.randn(2, frames, config["in_channels"], height, width, **half),
            "encoder_hidden_states": torch.randn(2, config["max_text_seq_length"], config["text_embed_dim"], **half),
            "timestep": torch.tensor([500, 500], device="cuda"),
            "return_dict": False,
        }
        if config["use_rotary_positional_embeddings"]:
            grid = height // 2, width // 2
            tables = get_3d_rotary_pos_embed(config["attention_head_dim"], ((0, 0), grid), grid, frames, device="cuda")
            inputs["image_rotary_emb"] = tables
        for name, wrap in (("eager", lambda m: m), ("torch.compile", torch.compile)):
            part = wrap(transformer)
            what = f"diffusers {name}: batch 2 of {preset}"
            taken = report.step(what, lambda: seconds(lambda: part(**inputs)))
            if taken is not None:
                report.add(what, f"{taken:.3f} s")

    def decode():
        vae, config = model(AutoencoderKLCogVideoX, "vae.json")
        latents = torch.randn(1, config["latent_channels"], *LATENTS, device="cuda", dtype=torch.bfloat16)
        taken = seconds(lambda: vae.decode(latents, return_dict=False))
        report.add("diffusers eager: decode 49x480x720", f"{taken:.3f} s")

    with torch.inference_mode():
        for preset in terrace.args.presets.split(","):
            report.step(f"diffusers {preset}", lambda: step(preset))
        report.step("diffusers decode", decode)


def main():
    args = arguments()
    if not args.terrace.is_file():
        raise SystemExit(f"{args.terrace} is not there; run `cargo build --release --features cuda`")
    report = Report(args.seconds)
    terrace = Terrace(args, report)
    devices = report.step("devices", lambda: terrace.call("devices"))
    print(devices or "", end="", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        parity(terrace, report, Path(folder))
        ranks(terrace, report, Path(folder))
    times(terrace, report)
    try:
        peers(terrace, report)
    except ImportError as missing:
        report.add("diffusers", "left out", str(missing))
    if args.output:
        results = {"date": time.strftime("%Y-%m-%d"), "host": os.uname().nodename, "devices": devices, "rows": report.rows}
        args.output.write_text(json.dumps(results, indent=2) + "\n")
    if not report.sound:
        sys.exit("a comparison has failed")


if __name__ == "__main__":
    main()
