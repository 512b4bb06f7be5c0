"""How fast it is: the step, what it is made of, the decoder, the time to the first step, against torch in the same run.

Every function with a `bench` alone is a phase of validate.py.
"""
import contextlib
import json
import math
import os
import struct
import subprocess
import threading
import time
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "models" / "configs"
# Dense bf16 peak in FLOP/s by its makers.
PEAKS = {"H100": 989e12, "H200": 989e12}
GIB = 1 << 30


# The step, and what it is compared with.


def step(bench):
    for dtype in bench.args.timed:
        most = {"bf16": 1.25, "fp8": 1.0}.get(dtype)
        bench.time(f"guided step of 5b, {dtype}", "step", *bench.of_preset("5b"), *bench.on(dtype), most=most)
    report, what = bench.report, f"guided step of 5b, {bench.main}"
    whole = report.numbers.get(what)
    if whole is not None:
        report.step(f"{what}, by kernels", lambda: by_kernels(bench, what, whole))


def by_kernels(bench, what, whole):
    """Where the time of a step goes, and what of it no kernel works.

    A traced run waits after every step of the list. What that adds to a kernel is not known, but it is at most what the
    shortest of them takes with it: so kernels work at least the sum less as many of these, and in what is then left of a
    whole run that was not traced the device had nothing to do, at most.
    """
    trace = bench.folder / "trace.json"
    bench.measure("step", *bench.of_preset("5b"), *bench.on(bench.main), "--trace", trace, runs=2, warmup=0)
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    # The first of both calls makes what is made at first use. What runs once per session comes before them.
    last = [event for event in second_call(events) if event["cat"] == "kernel"]
    report, least = bench.report, min(event["dur"] for event in last) / 1e6
    names = {}
    for event in last:
        count, seconds = names.get(event["name"], (0, 0.0))
        names[event["name"]] = count + 1, seconds + event["dur"] / 1e6 - least
    for name, (count, seconds) in sorted(names.items(), key=lambda entry: -entry[1][1])[:8]:
        report.add(f"{what}: {name}", f"{seconds:.4f} s", f"{count} launches, {100 * seconds / whole:.1f} % of the step")
    idle = max(1 - sum(seconds for _, seconds in names.values()) / whole, 0)
    note = f"less than 2 %; {len(last)} launches, {1e6 * least:.0f} us each left out of the sum"
    report.target(f"{what}: idle at most", idle, idle < 0.02, f"{100 * idle:.2f} %", note)


def second_call(events):
    """The events of the second of two equal calls, which end the trace."""
    names = [(event["name"], event["args"]["origin"]) for event in events]
    for length in range(len(names) // 2, 0, -1):
        if names[-length:] == names[-2 * length:-length]:
            return events[-length:]
    return events


def peer_step(bench):
    bench.peers("step")
    for name, least in (("torch.compile", 1.3), ("eager", None)):
        theirs, ours = f"diffusers {name}, batch 2 of 5b", f"guided step of 5b, {bench.main}"
        bench.report.ratio(f"guided step of 5b over {name}", theirs, ours, least)


def kernels(bench):
    """Products and attention alone: against all that cublasLt and cuDNN name, torch's, and as plans call them."""
    program = bench.test_program("cuda_device")
    if program is not None:
        bench.report.step("against the libraries' best", lambda: best(bench, program))
    bench.peers("kernels", share=0.5)
    for rows, k, n in bench.sizes["gemms"]:
        for dtype in bench.args.timed:
            bench.time(f"product {rows} x {k} x {n}, {dtype}", "gemm", "--rows", rows, "--k", k, "--n", n, *bench.on(dtype))
    tokens, heads, dim = bench.sizes["attention"]
    size = ["--tokens", tokens, "--heads", heads, "--head-dim", dim]
    bench.time(f"attention {tokens} x {heads} x {dim}, {bench.main}", "attention", *size, *bench.on(bench.main))


def best(bench, program):
    """What the tests of `best.rs` measure."""
    done = bench.tests(program, "--nocapture", "--test-threads", "1", "best::")
    found = [line.partition("measured ")[2] for line in done.stdout.splitlines() if "measured {" in line]
    if not found:
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
    for entry in map(json.loads, found):
        share = entry["best"] / entry["chosen"]
        rate = entry["flops"] / entry["chosen"] / 1e12
        note = f"at least 95 % of the best of {entry['named']}; {entry['chosen']:.5f} s, {rate:.0f} TFLOP/s"
        peak = next((peak for kind, peak in PEAKS.items() if kind in (bench.report.about.get("devices") or "")), None)
        if peak:
            note += f", {100 * rate * 1e12 / peak:.0f} % of bf16's peak"
        bench.report.target(f"chosen for {entry['what']}", share, share >= 0.95, f"{100 * share:.1f} %", note)


# The decoder.


class Memory:
    """Most memory of the GPU that was in use beyond that of the beginning, as its driver tells."""

    def __init__(self, device):
        number = device.partition(":")[2].split(",")[0] or "0"
        self.command = ["nvidia-smi", f"--id={number}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        self.first, self.most, self.ended = self.used(), 0, threading.Event()

    def used(self):
        return int(subprocess.run(self.command, check=True, capture_output=True, text=True, timeout=5).stdout) << 20

    def watch(self):
        while not self.ended.wait(0.05):
            with contextlib.suppress(Exception):
                self.most = max(self.most, self.used())

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def decode(bench):
    report, latents = bench.report, bench.sizes["latents"]
    flags = ["--latent-frames", latents[0], "--latent-height", latents[1], "--latent-width", latents[2], *bench.on(bench.main)]
    memory = report.step("memory of the decoder", lambda: Memory(bench.args.device))
    with memory or contextlib.nullcontext():
        bench.time(f"decode, {bench.main}", "decode", *flags)
    if memory is not None and memory.most:
        most = (memory.most - memory.first) / GIB
        report.target("memory of the decoder", most, most <= 24, f"{most:.1f} GiB", "at most 24 GiB, weights and context included")
    bench.peers("decode")
    report.ratio("decode over diffusers", "diffusers eager, decode", f"decode, {bench.main}", 1.5)


# From files.


def from_files(bench):
    """A 5b step whose weights come from files in the page cache: seconds from the start of the process to its end."""
    config = json.loads((CONFIGS / "transformer-5b.json").read_text())
    if bench.sizes["layers"]:
        config["num_layers"] = bench.sizes["layers"]
    model = bench.folder / "5b"
    (model / "transformer").mkdir(parents=True)
    (model / "transformer" / "config.json").write_text(json.dumps(config))
    plan = bench.folder / "5b.plan.json"
    bench.call("compile", "--model", model, *bench.sizes["size"], *bench.on(bench.main), "--output", plan)
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
    for name in ("first on this machine", "again"):
        what = f"start to end of one 5b step, weights cached, {name}"

        def run():
            begun = time.perf_counter()
            bench.measure("step", "--model", model, *bench.sizes["size"], *bench.on(bench.main), runs=1, warmup=0)
            return time.perf_counter() - begun

        taken = bench.report.step(what, run)
        if taken is not None:
            bench.report.timed(what, taken, most=10 if name == "again" else None)


def others(bench):
    """Times that nothing is aimed at: 2b, forwards, several ranks on the one GPU."""
    for count in (2, 4):
        bench.time(f"guided step of 5b, {bench.main}, {count} ranks", "step", *bench.of_preset("5b"), "--num-gpus", count,
                   *bench.on(bench.main))
    for preset, part in (("2b", "step"), ("2b", "forward"), ("5b", "forward")):
        name = "guided step" if part == "step" else part
        bench.time(f"{name} of {preset}, {bench.main}", part, *bench.of_preset(preset), *bench.on(bench.main))
    bench.peers("step", presets=["2b"])
