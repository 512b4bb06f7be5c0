#!/usr/bin/env python3
"""Times Terrace against torch and OpenVINO on the CPU, in turn, on the same random weights and inputs.

    cargo build --release
    python3 benches/peers/compare.py forward                  # two blocks of the 2b transformer, 226 + 1350 tokens
    python3 benches/peers/compare.py forward --latents 3 60 90 --dtypes bf16
    python3 benches/peers/compare.py decode                   # the VAE on 3 latent frames of 15 x 22

The first run makes a virtual environment with the packages of requirements.txt in --venv. README.md says the method.
Exits with 1 when an output is not that of torch in float32.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIGS = ROOT / "models" / "configs"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
# What rounding may do to an output, as relative L2 error against torch in float32.
LIMITS = {"f32": 1e-4, "bf16": 5e-2}
# What a part is called by the command line, and its config and output.
PARTS = {"forward": ("transformer", "sample"), "decode": ("vae", "frames")}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--preset", default="2b", help="transformer config of models/configs")
    parser.add_argument("--layers", type=int, default=2, help="transformer blocks")
    parser.add_argument("--latents", type=int, nargs=3, metavar=("F", "H", "W"), help="latent frames, rows, columns")
    parser.add_argument("--dtypes", default="f32,bf16", help="of f32 and bf16, with commas")
    parser.add_argument("--peers", default="torch,torch.compile,openvino", help="of these, with commas")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--terrace", type=Path, default=ROOT / "target" / "release" / "terrace")
    parser.add_argument("--venv", type=Path, default=CACHE / "terrace-peers")
    args = parser.parse_args()
    args.latents = args.latents or {"forward": [1, 60, 90], "decode": [3, 15, 22]}[args.part]
    return args


def enter_environment(folder):
    """Goes on in the environment, which is made when it is not there."""
    if Path(sys.prefix) == folder.resolve():
        return
    python = folder / "bin" / "python"
    done = folder / "requirements.txt"
    wanted = (HERE / "requirements.txt").read_text()
    if not done.is_file() or done.read_text() != wanted:
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
        done.write_text(wanted)
    os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


def error(found, expected):
    return ((found.float() - expected).norm() / expected.norm()).item()


def transformer(args, folder):
    """A checkpoint with random weights, its inputs as a file, and as arguments of the model."""
    import torch
    from diffusers import CogVideoXTransformer3DModel

    config = json.loads((CONFIGS / f"transformer-{args.preset}.json").read_text())
    frames, height, width = args.latents
    # A model of just this size: tracing the computation of positions of other sizes gives wrong ones.
    config |= {"num_layers": args.layers, "sample_height": height, "sample_width": width,
               "sample_frames": (frames - 1) * config["temporal_compression_ratio"] + 1}
    model = CogVideoXTransformer3DModel.from_config(config).eval().requires_grad_(False)
    model.save_pretrained(folder / "transformer")
    inputs = {
        "hidden_states": torch.randn(1, args.latents[0], config["in_channels"], *args.latents[1:]),
        "encoder_hidden_states": torch.randn(1, config["max_text_seq_length"], config["text_embed_dim"]),
        "timestep": torch.tensor([500.0]),
    }
    extra = {}
    if config.get("ofs_embed_dim"):
        inputs["ofs"] = torch.tensor([2.0])
    if config["use_rotary_positional_embeddings"]:
        extra["image_rotary_emb"] = rotary(config, args.latents)
    return model, inputs, extra


def rotary(config, latents):
    """The tables of a video of the model's own size."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    if config.get("patch_size_t"):
        raise SystemExit("presets of 1.5 are not compared; use 2b or 5b")
    grid = [side // config["patch_size"] for side in latents[1:]]
    return get_3d_rotary_pos_embed(config["attention_head_dim"], ((0, 0), grid), grid, latents[0])


def vae(args, folder):
    """As `transformer`, for the decoder."""
    import torch
    from diffusers import AutoencoderKLCogVideoX

    config = json.loads((CONFIGS / "vae.json").read_text())
    model = AutoencoderKLCogVideoX.from_config(config).eval().requires_grad_(False)
    model.save_pretrained(folder / "vae")
    return model, {"latents": torch.randn(1, args.latents[0], config["latent_channels"], *args.latents[1:])}, {}


def function(args, model, inputs, extra):
    """What is called on the peers: tensors in, one tensor out."""
    import torch

    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *tensors):
            if args.part == "forward":
                named = dict(zip(inputs, tensors), **extra)
                return self.model(**named, return_dict=False)[0]
            latents = tensors[0].permute(0, 2, 1, 3, 4) / self.model.config.scaling_factor
            return self.model.decode(latents, return_dict=False)[0].permute(0, 2, 1, 3, 4)

    return Part().eval()


class Terrace:
    """Our command line. Its process is there during its own runs only."""

    def __init__(self, args, folder, dtype):
        self.flags = ["--model", folder, "--dtype", dtype, "--threads", args.threads]
        self.part, self.program, self.folder = args.part, args.terrace, folder
        self.source = ["--inputs" if args.part == "forward" else "--latents", folder / "inputs.safetensors"]
        self.flops = 0

    def call(self, *command):
        command = [str(word) for word in (self.program, *command, *self.source, *self.flags)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def output(self):
        from safetensors.torch import load_file

        file = self.folder / "output.safetensors"
        self.call(self.part, "--output", file)
        return load_file(file)[PARTS[self.part][1]]

    def seconds(self):
        found = json.loads(self.call("bench", self.part, "--runs", 1, "--warmup", 1, "--json"))
        self.flops = found["flops"]
        return found["median_seconds"]


class Peer:
    """A function of this process."""

    def __init__(self, function, tensors):
        self.function, self.tensors = function, tensors

    def output(self):
        return self.function(*self.tensors)

    def seconds(self):
        # A run that is not timed, since another contestant has had the caches.
        self.output()
        begun = time.perf_counter()
        self.output()
        return time.perf_counter() - begun


def torch_peer(part, tensors, dtype, wrap):
    import copy
    import torch

    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    part = copy.deepcopy(part).to(kind)
    # Time steps and rotary tables keep their precision, as in the pipeline of diffusers.
    tensors = [t.to(kind) if t.dim() > 1 else t for t in tensors]
    return Peer(wrap(part), tensors)


def openvino_peer(part, tensors, dtype, threads):
    import openvino
    import torch

    core = openvino.Core()
    offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if dtype == "bf16" and "BF16" not in offered:
        raise RuntimeError("the CPU plugin offers no bf16 on this processor")
    graph = openvino.convert_model(part, example_input=tuple(tensors), input=[list(t.shape) for t in tensors])
    options = {"INFERENCE_PRECISION_HINT": dtype, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(graph, "CPU", options)
    arrays = [t.numpy() for t in tensors]
    return Peer(lambda *arrays: torch.from_numpy(compiled(arrays)[0].copy()), arrays)


def contestants(args, part, tensors, folder):
    """Makes each, ours first, and says why one cannot be made here."""
    import torch

    makers = {
        "torch": lambda dtype: torch_peer(part, tensors, dtype, lambda part: part),
        "torch.compile": lambda dtype: torch_peer(part, tensors, dtype, torch.compile),
        "openvino": lambda dtype: openvino_peer(part, tensors, dtype, args.threads),
    }
    for dtype in args.dtypes.split(","):
        yield "terrace", dtype, Terrace(args, folder, dtype)
        for name in args.peers.split(","):
            try:
                peer = makers[name](dtype)
                peer.output()
            except Exception as problem:  # Whatever a library cannot do here is its result.
                print(f"{name} {dtype}: left out: {str(problem).strip().splitlines()[0]}", flush=True)
                continue
            yield name, dtype, peer


def show(name, dtype, ours, times, flops, wrong):
    median, least, most = statistics.median(times), min(times), max(times)
    ratios = [theirs / own for theirs, own in zip(times, ours)]
    print(f"{name:14} {dtype:5} {median:9.3f} {least:9.3f} {most:9.3f} {flops / median / 1e9:9.1f} "
          f"{statistics.median(ratios):7.2f} {min(ratios):7.2f} {max(ratios):7.2f}   {wrong:.1e}", flush=True)


def compare(args, folder):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model, inputs, extra = {"forward": transformer, "decode": vae}[args.part](args, folder)
    save_file(inputs, folder / "inputs.safetensors")
    part, tensors = function(args, model, inputs, extra), list(inputs.values())
    truth = part(*tensors)
    field = [(*entry, []) for entry in contestants(args, part, tensors, folder)]
    wrong = {entry[:2]: error(entry[2].output(), truth) for entry in field}
    for _ in range(args.rounds):
        for _, _, contestant, times in field:
            times.append(contestant.seconds())
    flops = next(entry[2].flops for entry in field if entry[0] == "terrace")
    print(f"{args.part} {args.latents} of {PARTS[args.part][0]}, {args.threads} threads, {args.rounds} rounds")
    print(f"{'':20} {'median s':>9} {'min':>9} {'max':>9} {'GFLOP/s':>9} {'ratio':>7} {'min':>7} {'max':>7}   error")
    ours = {dtype: times for name, dtype, _, times in field if name == "terrace"}
    for name, dtype, _, times in field:
        show(name, dtype, ours[dtype], times, flops, wrong[name, dtype])
    return all(wrong[name, dtype] <= LIMITS[dtype] for name, dtype in wrong)


def main():
    args = arguments()
    if not args.terrace.is_file():
        raise SystemExit(f"{args.terrace} is not there; run `cargo build --release`")
    enter_environment(args.venv)
    import torch

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if not compare(args, Path(folder)):
            raise SystemExit("an output is not that of torch in float32")


if __name__ == "__main__":
    main()
