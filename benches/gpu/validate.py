#!/usr/bin/env python3
"""Validates and measures the CUDA backend on one GPU in under ten minutes.

    # On any machine; the programs find NVIDIA's libraries at run time.
    cargo build --release --features cuda
    cargo test --release -p terrace-kernels --features cuda --test cube --test cuda_device --no-run
    # On the machine with the GPU; needs no network and no packages.
    python3 benches/gpu/validate.py

1. Kernels: every kernel and every use of a library against the host, by the test programs.
2. Parity: transformer and VAE reference cases and the demo model against the CPU of the same program, f32 and 16 bits against
   its f32, fp8 against its fp8; the demo video in every type against that of the CPU in f32.
3. Ranks: 1, 2 and 4 ranks on the GPU give the same bits without a ring, the same numbers up to rounding with one.
4. Times: products and attention of 5b alone; forward, guided step and decode of 2b and 5b at 49x480x720 with weights of
   noise, in bf16 and fp8; a 5b step from files.
5. Peers: torch's products and attention; diffusers eager and torch.compile at the same sizes; as far as both can be imported.

NVIDIA's libraries are looked for among the packages of this Python as well. Every part has its share of the time, and what
does not fit is named. Prints a table; --output writes it as JSON as well. Exits with 1 when a comparison fails.
NOTHING HERE HAS BEEN RUN ON A GPU YET.
"""
import argparse
import array
import concurrent.futures
import contextlib
import json
import math
import os
import random
import site
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
CONFIGS = ROOT / "models" / "configs"
# Relative L2 error that rounding may make against the CPU in f32.
# In fp8 against the CPU in fp8, whose activations have more bits, so that some of them are rounded to another neighbour here.
LIMITS = {"f32": 1e-4, "f16": 5e-3, "bf16": 5e-2, "fp8": 5e-2}
# Decibels of the demo video against that of the CPU in f32.
LEAST_PSNR = {"f32": 55, "f16": 40, "bf16": 35, "fp8": 25}
PROMPT = "a red circle moving right on a black background"
# Rounding of one ring against another order of blocks.
RING = 1e-5
# Latent frames, rows and columns of 49x480x720.
LATENTS = [13, 60, 90]
# Products [rows, k] [n, k]^T of a guided 5b step, and its attention.
GEMMS = [(35552, 3072, 9216), (35552, 3072, 3072), (35552, 3072, 12288), (35552, 12288, 3072)]
TOKENS, HEADS, HEAD_DIM = 17776, 48, 64
# Test programs of the kernels.
SUITES = ["cuda_device", "cube"]
# Processes that use the GPU side by side where only results count.
WORKERS = 6


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terrace", type=Path, default=ROOT / "target" / "release" / "terrace")
    parser.add_argument("--suites", type=Path, default=ROOT / "target" / "release" / "deps", help="folder of the test programs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtypes", default="f32,bf16,fp8", help="of f32, f16, bf16 and fp8, with commas")
    parser.add_argument("--presets", default="2b,5b", help="of models/configs, with commas")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each")
    parser.add_argument("--seconds", type=int, default=570, help="time for everything")
    parser.add_argument("--output", type=Path, help="file for the results as JSON")
    return parser.parse_args()


class Report:
    """Rows of the table, and whether all comparisons held."""

    def __init__(self, seconds):
        self.rows, self.sound, self.end = [], True, time.monotonic() + seconds
        self.part = self.end

    def left(self):
        return min(self.end, self.part) - time.monotonic()

    @contextlib.contextmanager
    def within(self, seconds):
        """What is run inside gets so much of the time."""
        self.part = time.monotonic() + seconds
        try:
            yield
        finally:
            self.part = self.end

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


def environment():
    """That of this process, with the libraries that come with packages of this Python, and the folder where they are."""
    roots = dict.fromkeys([*sys.path, *site.getsitepackages(), site.getusersitepackages()])
    folders = [str(folder) for root in roots for folder in sorted(Path(root).glob("nvidia/*/lib"))]
    known = os.environ.get("LD_LIBRARY_PATH", "")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders + [known] if known else folders)}, folders


class Terrace:
    def __init__(self, args, report):
        self.args, self.report = args, report
        self.environment, self.folders = environment()

    def call(self, *words):
        return self.run(self.args.terrace, *words)

    def run(self, *words):
        command = [str(word) for word in words]
        left = max(self.report.left(), 1)
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=left, env=self.environment)
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


def pixels(path):
    """The bytes of the pixels of a png file of 8 bits per channel, RGB."""
    content, at, data = path.read_bytes(), 8, b""
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at:at + 8])
        chunk = content[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, *form = struct.unpack(">IIBBBBB", chunk)
            if form != [8, 2, 0, 0, 0]:
                raise ValueError(f"{path}: expected 8 bits of RGB, found {form}")
        elif kind == b"IDAT":
            data += chunk
        at += length + 12
    lines, size = zlib.decompress(data), 3 * width
    above, out = bytearray(size), bytearray()
    for line in range(height):
        begin = line * (size + 1)
        filtered, row = lines[begin], bytearray(lines[begin + 1:begin + 1 + size])
        for i in range(size):
            left, corner = (row[i - 3], above[i - 3]) if i >= 3 else (0, 0)
            row[i] = (row[i] + predicted(filtered, left, above[i], corner)) % 256
        out += row
        above = row
    return out


def predicted(filtered, left, above, corner):
    """What a filter of png takes from a byte."""
    if filtered == 4:
        distance = {value: abs(left + above - corner - value) for value in (corner, above, left)}
        return min((left, above, corner), key=distance.get)
    return (0, left, above, (left + above) // 2)[filtered]


def psnr(found, expected):
    wrong = sum((x - y) ** 2 for x, y in zip(found, expected, strict=True)) / len(expected)
    return 10 * math.log10(255 ** 2 / wrong) if wrong else math.inf


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
    yield "encode-text demo", ["encode-text", "--prompt", PROMPT]


def suites(terrace, report):
    """The test programs, all at once; a program that is not there is named."""
    for name in SUITES:
        found = [path for path in terrace.args.suites.glob(f"{name}-*") if os.access(path, os.X_OK) and not path.suffix]
        if not found:
            report.add(f"kernels: {name}", "left out", f"no test program in {terrace.args.suites}")
            continue
        program = max(found, key=lambda path: path.stat().st_mtime)

        def run():
            device = {"TERRACE_TEST_DEVICE": terrace.args.device}
            command = [str(program), "--include-ignored", "--test-threads", str(WORKERS)]
            left = max(report.left(), 1)
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, env={**terrace.environment, **device})
            lines = done.stdout.splitlines()
            summary = [line for line in lines if line.startswith("test result:")]
            passed = sum(line.endswith("... ok") for line in lines)
            for line in lines:
                if line.startswith("test ") and line.endswith("FAILED"):
                    test = line.split()[1]
                    # The first line of the panic behind the name of the test.
                    told = done.stdout.partition(f"---- {test} stdout ----")[2].strip().splitlines()
                    report.add(f"kernels: {name} {test}", "FAILED", " ".join(told[:4])[:400], sound=False)
            sound = done.returncode == 0 and bool(summary)
            note = summary[0] if summary else (done.stderr.strip().splitlines() or ["no result"])[-1]
            report.add(f"kernels: {name}", f"{passed} passed", note, sound)

        report.step(f"kernels: {name}", run)


def parity(terrace, report, folder):
    """All cases side by side; each has files of its own."""
    def case(number, name, command):
        expected = {dtype: folder / f"cpu-{number}-{dtype}.safetensors" for dtype in ("f32", "fp8")}

        def on_cpu():
            for dtype, output in expected.items():
                terrace.call(*command, "--output", output, "--dtype", dtype)
            return expected

        if report.step(name, on_cpu) is None:
            return
        for dtype in terrace.args.dtypes.split(","):
            found = folder / f"gpu-{number}-{dtype}.safetensors"

            def compare():
                terrace.call(*command, "--output", found, "--device", terrace.args.device, "--dtype", dtype)
                wrong = error(read_tensor(found), read_tensor(expected["fp8" if dtype == "fp8" else "f32"]))
                note = f"at most {LIMITS[dtype]:.0e}"
                if dtype == "fp8":
                    note += f"; {error(read_tensor(found), read_tensor(expected['f32'])):.1e} against f32"
                report.add(f"{name} {dtype}", f"{wrong:.1e}", note, wrong <= LIMITS[dtype])

            report.step(f"{name} {dtype}", compare)

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda part: case(part[0], *part[1]), enumerate(parts(folder))))


def generation(terrace, report, folder):
    """The demo's latents after some steps, the later ones repeated from a record, against the CPU: in f32, or in fp8; and
    its video against that of the CPU in f32."""
    def run(device, dtype):
        name = f"{device}-{dtype}".replace(":", "-")
        latents, frames = folder / f"latents-{name}.safetensors", folder / f"frames-{name}"
        frames.mkdir()
        terrace.call("generate", "--prompt", PROMPT, "--num-inference-steps", 6, "--device", device, "--dtype", dtype,
                     "--output", frames, "--save-latents", latents)
        return read_tensor(latents), b"".join(pixels(path) for path in sorted(frames.iterdir()))

    expected = report.step("demo video", lambda: {dtype: run("cpu", dtype) for dtype in ("f32", "fp8")})
    for dtype in terrace.args.dtypes.split(",") if expected is not None else []:
        found = report.step(f"demo video {dtype}", lambda: run(terrace.args.device, dtype))
        if found is not None:
            wrong = error(found[0], expected["fp8" if dtype == "fp8" else "f32"][0])
            # Errors grow from step to step.
            limit = 4 * LIMITS[dtype]
            report.add(f"demo video, 6 steps, {dtype}", f"{wrong:.1e}", f"at most {limit:.0e}", wrong <= limit)
            decibels, least = psnr(found[1], expected["f32"][1]), LEAST_PSNR[dtype]
            report.add(f"demo video, 6 steps, {dtype}", f"{decibels:.1f} dB", f"at least {least} dB", decibels >= least)


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
    def measure(name, *words, dtypes=("bf16", "fp8")):
        for dtype in dtypes:
            what = f"{name}, {dtype}"
            device = ["--device", terrace.args.device, "--dtype", dtype]
            found = report.step(what, lambda: terrace.bench(*words, *device))
            if found is not None:
                seconds = found["median_seconds"]
                report.add(what, f"{seconds:.4f} s", f"{found['flops'] / seconds / 1e12:.0f} TFLOP/s")

    alone = ("bf16",)

    for rows, k, n in GEMMS:
        measure(f"product {rows} x {k} x {n}", "gemm", "--rows", rows, "--k", k, "--n", n)
    size = ["--tokens", TOKENS, "--heads", HEADS, "--head-dim", HEAD_DIM]
    measure(f"attention {TOKENS} x {HEADS} x {HEAD_DIM}", "attention", *size, dtypes=alone)
    latents = ["--latent-frames", LATENTS[0], "--latent-height", LATENTS[1], "--latent-width", LATENTS[2]]
    measure("decode 49x480x720", "decode", *latents, dtypes=alone)
    for preset in terrace.args.presets.split(","):
        config = json.loads((CONFIGS / f"transformer-{preset}.json").read_text())
        size = ["--preset", preset, "--layers", config["num_layers"], "--num-frames", 49]
        measure(f"forward {preset} 49x480x720", "forward", *size)
        for count in (1, 2, 4):
            measure(f"guided step {preset} 49x480x720, {count} ranks", "step", *size, "--num-gpus", count,
                    dtypes=("bf16", "fp8") if count == 1 else alone)


def from_files(terrace, report, folder):
    """A 5b step whose weights come from files in the page cache: seconds from the start of the process to its end."""
    model = folder / "5b"
    (model / "transformer").mkdir(parents=True)
    config = json.loads((CONFIGS / "transformer-5b.json").read_text())
    (model / "transformer" / "config.json").write_text(json.dumps(config))
    plan = folder / "5b.plan"
    terrace.call("compile", "--model", model, "--num-frames", 49, "--dtype", "bf16", "--output", plan)
    header, end = {}, 0
    for weight in json.loads(plan.read_text())["weights"]:
        for source in weight["sources"]:
            begin, end = end, end + 2 * math.prod(source["shape"])
            header[source["name"]] = {"dtype": "BF16", "shape": source["shape"], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (model / "transformer" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        # Numbers do not matter, where they come from does; so the file is written and not left empty.
        block = os.urandom(1 << 20).replace(b"\x7f", b"\x3f").replace(b"\xff", b"\xbf") * 16
        while end > 0:
            file.write(block[:end])
            end -= len(block)

    def run():
        begun = time.perf_counter()
        terrace.call("bench", "step", "--model", model, "--num-frames", 49, "--dtype", "bf16", "--device", terrace.args.device,
                     "--warmup", 0, "--runs", 1, "--json")
        return time.perf_counter() - begun

    taken = run()
    report.add("start to end of one 5b step, weights cached", f"{taken:.1f} s", "at most 10 s")


def median_seconds(function, runs):
    """Of one call on the GPU, in this process."""
    import torch

    function()
    torch.cuda.synchronize()
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        function()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[len(taken) // 2]


def torch_kernels(terrace, report):
    """torch's products and attention at the sizes of ours, repeated as ours are."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def noise(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    def measure(name, flops, kernel, repeats=16):
        taken = report.step(name, lambda: median_seconds(lambda: [kernel() for _ in range(repeats)], terrace.args.runs))
        if taken is not None:
            report.add(name, f"{taken / repeats:.4f} s", f"{flops * repeats / taken / 1e12:.0f} TFLOP/s")

    with torch.inference_mode():
        for rows, k, n in GEMMS:
            x, weight = noise(rows, k), noise(n, k)
            measure(f"torch product {rows} x {k} x {n}", 2 * rows * k * n, lambda: torch.nn.functional.linear(x, weight))
        q, k, v = (noise(1, HEADS, TOKENS, HEAD_DIM) for _ in range(3))
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with sdpa_kernel(backend):
                measure(f"torch attention {TOKENS} x {HEADS} x {HEAD_DIM}, {backend.name.lower()}",
                        4 * HEADS * TOKENS * TOKENS * HEAD_DIM, lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))


def peers(terrace, report):
    """diffusers at the same sizes, in this process."""
    import torch
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    def seconds(function):
        return median_seconds(function, terrace.args.runs)

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
    print("libraries in", *(terrace.folders or ["the system's folders only"]))
    devices = report.step("devices", lambda: terrace.call("devices"))
    print(devices or "", end="", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with report.within(90):
            suites(terrace, report)
        with report.within(150):
            parity(terrace, report, folder)
        with report.within(60):
            ranks(terrace, report, folder)
        with report.within(30):
            generation(terrace, report, folder)
        with report.within(200):
            times(terrace, report)
        with report.within(60):
            report.step("5b from files", lambda: from_files(terrace, report, folder))
    for name, measure in (("torch", torch_kernels), ("diffusers", peers)):
        try:
            measure(terrace, report)
        except ImportError as missing:
            report.add(name, "left out", str(missing))
    if args.output:
        results = {"date": time.strftime("%Y-%m-%d"), "host": os.uname().nodename, "devices": devices, "rows": report.rows}
        args.output.write_text(json.dumps(results, indent=2) + "\n")
    if not report.sound:
        sys.exit("a comparison has failed")


if __name__ == "__main__":
    main()
