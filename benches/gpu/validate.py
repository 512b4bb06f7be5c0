#!/usr/bin/env python3
"""Validates and measures the CUDA backend on one GPU in under ten minutes. README.md says what each row means.

    # On any machine; the programs find NVIDIA's libraries at run time.
    cargo build --release --features cuda
    cargo test --release -p terrace-kernels --features cuda --test cube --test cuda_device --no-run
    # On the machine with the GPU; needs no network. torch and diffusers are measured beside ours where Python has them.
    python3 benches/gpu/validate.py --output h100.json

    python3 benches/gpu/validate.py --rehearse --device cpu   # small sizes anywhere: does the script itself work?

The phases run in the order of their importance, each with a share of --seconds; one that fails or takes too long does not stop the
others, and --output is written after each. --only names phases for another run. NVIDIA's libraries are looked for among the
packages of this Python as well. Exits with 1 when a comparison fails. NOTHING HERE HAS BEEN RUN ON A GPU YET.
"""
import argparse
import json
import os
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import parity
import speed
from report import LEFT_OUT, Report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIGS = ROOT / "models" / "configs"
GIB = 1 << 30

# 49 x 480 x 720: products [rows, k] [n, k]^T of a guided 5b step, and its attention.
FULL = {
    "size": ["--num-frames", 49], "latents": [13, 60, 90], "layers": 0, "truth_layers": 2, "truth_latents": [3, 15, 22],
    "gemms": [[35552, 3072, 9216], [35552, 3072, 3072], [35552, 3072, 12288], [35552, 12288, 3072]],
    "attention": [17776, 48, 64], "presets": ["5b"],
}
SMALL = {
    "size": ["--num-frames", 1, "--height", 32, "--width", 48], "latents": [1, 4, 6], "layers": 1, "truth_layers": 1,
    "truth_latents": [1, 4, 6], "gemms": [[64, 96, 160]], "attention": [50, 2, 64], "presets": ["5b"],
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terrace", type=Path, default=ROOT / "target" / "release" / "terrace")
    parser.add_argument("--suites", type=Path, default=ROOT / "target" / "release" / "deps", help="folder of the test programs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtypes", default="bf16,f32,fp8", help="compared: of f32, f16, bf16 and fp8, with commas")
    parser.add_argument("--timed", default="bf16,fp8", help="types that are timed, the one that peers run first")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each")
    parser.add_argument("--seconds", type=int, default=570, help="time for everything")
    parser.add_argument("--only", default=",".join(PHASES), help=f"phases, with commas [default: all, {','.join(PHASES)}]")
    parser.add_argument("--output", type=Path, help="file for the results as JSON")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, to try the script")
    args = parser.parse_args()
    args.dtypes, args.timed, args.only = (text.split(",") for text in (args.dtypes, args.timed, args.only))
    unknown = set(args.only) - set(PHASES)
    if unknown:
        parser.error(f"there is no phase {', '.join(sorted(unknown))}; phases are {', '.join(PHASES)}")
    return args


def environment():
    """That of this process, with the libraries that come with packages of this Python, and the folders where they are."""
    roots = dict.fromkeys([*sys.path, *site.getsitepackages(), site.getusersitepackages()])
    folders = [str(folder) for root in roots for folder in sorted(Path(root).glob("nvidia/*/lib"))]
    known = os.environ.get("LD_LIBRARY_PATH", "")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders + [known] if known else folders)}, folders


class Bench:
    """Everything that a phase needs: the program, the peers, the report, a folder."""

    def __init__(self, args, report, folder):
        self.args, self.report, self.folder = args, report, folder
        self.environment, self.libraries = environment()
        self.sizes = dict(SMALL if args.rehearse else FULL)
        self.main = args.timed[0]

    def run(self, *words, **variables):
        command = [str(word) for word in words]
        left = max(self.report.left(), 1)
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=left,
                              env={**self.environment, **variables})
        return done.stdout

    def call(self, *words, **variables):
        return self.run(self.args.terrace, *words, **variables)

    def on(self, dtype):
        return ["--device", self.args.device, "--dtype", dtype]

    def measure(self, *words, runs=None, warmup=1):
        return json.loads(self.call("bench", *words, "--runs", runs or self.args.runs, "--warmup", warmup, "--json"))

    def of_preset(self, preset):
        """Flags of a whole model at the size that is measured."""
        layers = self.sizes["layers"] or json.loads((CONFIGS / f"transformer-{preset}.json").read_text())["num_layers"]
        return ["--preset", preset, "--layers", layers, *self.sizes["size"]]

    def time(self, what, *words, most=None):
        """Seconds and TFLOP/s of a measurement of ours."""
        found = self.report.step(what, lambda: self.measure(*words))
        if found is not None:
            seconds = found["median_seconds"]
            self.report.timed(what, seconds, f"{found['flops'] / seconds / 1e12:.1f} TFLOP/s", most)
        return found

    def peers(self, what, share=1.0, **more):
        """What torch and diffusers say, as far as they got in a share of the time."""
        device = "cuda" if self.args.device.startswith("cuda") else "cpu"
        sizes = {**self.sizes, **more, "device": device, "runs": self.args.runs}
        command = [sys.executable, str(HERE / "peers.py"), what, "--sizes", json.dumps(sizes), "--folder", str(self.folder)]
        limit = share * self.report.left()
        if limit < 5:
            self.report.add(f"peers: {what}", "left out", "no time", LEFT_OUT)
            return
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
            out, trouble = done.stdout, (done.stderr.strip().splitlines() or ["no reason"])[-1] if done.returncode else ""
        except subprocess.TimeoutExpired as late:
            out, trouble = (late.stdout or b"").decode(), "no time"
        for line in filter(lambda line: line.startswith("{"), out.splitlines()):
            self.told(**json.loads(line))
        if trouble:
            self.report.add(f"peers: {what}", "left out", trouble, LEFT_OUT)

    def told(self, what, problem=None, seconds=None, error=None, peak_bytes=None, **facts):
        if problem:
            self.report.add(what, "left out", problem, LEFT_OUT)
        elif seconds is not None:
            self.report.timed(what, seconds, f"{peak_bytes / GIB:.1f} GiB" if peak_bytes else "")
        elif error is not None:
            self.report.numbers[what] = error
            self.report.add(what, f"{error:.1e}", "against its f32")
        else:
            self.report.add(what, "", ", ".join(f"{name} {value}" for name, value in facts.items()))

    def test_program(self, name):
        """The newest test program of this name; one that is not there is named."""
        found = [path for path in self.args.suites.glob(f"{name}-*") if os.access(path, os.X_OK) and not path.suffix]
        if not found:
            self.report.add(f"kernels: {name}", "left out", f"no test program in {self.args.suites}", LEFT_OUT)
            return None
        return max(found, key=lambda path: path.stat().st_mtime)

    def tests(self, program, *flags):
        """Runs tests that need a GPU."""
        command = [str(program), "--include-ignored", *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=max(self.report.left(), 1),
                              env={**self.environment, "TERRACE_TEST_DEVICE": self.args.device})


# In the order of importance: what it does and the seconds that it may take at most.
PHASES = {
    "start": (parity.start, 75), "step": (speed.step, 110), "peer-step": (speed.peer_step, 140),
    "kernels": (speed.kernels, 60), "truth": (parity.truth, 60), "decode": (speed.decode, 60), "ranks": (parity.ranks, 45),
    "from-files": (speed.from_files, 60), "suites": (parity.suites, 60), "cases": (parity.cases, 60), "others": (speed.others, 120),
}


def main():
    args = arguments()
    if not args.terrace.is_file():
        raise SystemExit(f"{args.terrace} is not there; run `cargo build --release --features cuda`")
    about = {"date": time.strftime("%Y-%m-%d"), "host": os.uname().nodename, "arguments": sys.argv[1:]}
    report = Report(args.seconds * (4 if args.rehearse else 1), args.output, about)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(args, report, Path(name))
        print("libraries in", *(bench.libraries or ["the system's folders only"]))
        for phase in (phase for phase in PHASES if phase in args.only):
            work, seconds = PHASES[phase]
            # A rehearsal is in no hurry, and is where everything is slow.
            with report.phase(phase, seconds * (4 if args.rehearse else 1)):
                work(bench)
    report.summary()
    if not report.sound():
        sys.exit("a comparison has failed")


if __name__ == "__main__":
    main()
