"""Whether results are right: demo, full size against torch, ranks, every kernel, every reference case.

Every function is a phase of validate.py.
"""
import concurrent.futures
import json
from pathlib import Path

from files import error, noise, pixels, psnr, read_tensor, write_tensors
from report import FAILED, HELD, LEFT_OUT

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
# Relative L2 error that rounding may make against the CPU in f32.
# In fp8 against the CPU in fp8, whose activations have more bits, so that some of them are rounded to another neighbour here.
LIMITS = {"f32": 1e-4, "f16": 5e-3, "bf16": 5e-2, "fp8": 5e-2}
# Decibels of the demo video against that of the CPU in f32.
LEAST_PSNR = {"f32": 55, "f16": 40, "bf16": 35, "fp8": 25}
PROMPT = "a red circle moving right on a black background"
# Rounding of one ring against another order of blocks.
RING = 1e-5
# Processes that use the GPU side by side where only results count.
WORKERS = 6
GIB = 1 << 30


# What runs first: does it work at all?


def start(bench):
    report = bench.report
    devices = report.step("devices", lambda: bench.call("devices"))
    print(devices or "", end="", flush=True)
    report.about["devices"] = devices
    demo(bench)


def demo(bench):
    """The demo's latents after some steps, the later ones repeated from a record, against the CPU: in f32, or in fp8; and
    its video against that of the CPU in f32."""
    report, folder = bench.report, bench.folder

    def run(name, *where):
        latents, frames = folder / f"{name}.safetensors", folder / name
        frames.mkdir()
        bench.call("generate", "--prompt", PROMPT, "--num-inference-steps", 6, *where, "--output", frames, "--save-latents", latents)
        return read_tensor(latents), b"".join(pixels(path) for path in sorted(frames.iterdir()))

    def on_cpu():
        return {dtype: run(f"cpu-{dtype}", "--dtype", dtype) for dtype in ("f32", "fp8")}

    expected = report.step("demo video on the CPU", on_cpu)
    for dtype in bench.args.dtypes if expected is not None else []:
        found = report.step(f"demo video, 6 steps, {dtype}", lambda: run(f"gpu-{dtype}", *bench.on(dtype)))
        if found is not None:
            wrong = error(found[0], expected["fp8" if dtype == "fp8" else "f32"][0])
            # Errors grow from step to step.
            report.compare(f"demo latents, 6 steps, {dtype}", wrong, 4 * LIMITS[dtype])
            decibels, least = psnr(found[1], expected["f32"][1]), LEAST_PSNR[dtype]
            report.add(f"demo video, 6 steps, {dtype}", f"{decibels:.1f} dB", f"at least {least} dB against f32",
                       HELD if decibels >= least else FAILED)


# Numbers at full size.


def truth(bench):
    """Transformer and decoder with random weights against torch in f32 on the same device; ours may be as far off as torch's own."""
    report, folder = bench.report, bench.folder
    bench.peers("truth", share=0.7)
    for part, source, output in (("forward", ["--inputs", folder / "inputs.safetensors"], "sample"),
                                 ("decode", ["--latents", folder / "latents.safetensors"], "frames")):
        expected = folder / f"{output}.safetensors"
        if not expected.is_file():
            report.add(f"{part} against torch", "left out", "torch has made nothing to compare with", LEFT_OUT)
            continue
        expected = read_tensor(expected)
        for dtype in bench.args.dtypes:
            def run():
                found = folder / f"ours-{output}-{dtype}.safetensors"
                bench.call(part, "--model", folder, *source, "--output", found, *bench.on(dtype))
                return error(read_tensor(found), expected)

            what = f"{part} against torch in f32, {dtype}"
            wrong = report.step(what, run)
            if wrong is not None:
                report.compare(what, wrong, LIMITS[dtype], "the loss of quality of fewer bits" if dtype == "fp8" else "")


# Ranks.


def ranks(bench):
    """The same bits on every cut without a ring, and through NCCL at world size 1."""
    case, report = GOLDENS / "five-heads", bench.report
    inputs = bench.folder / "ranks.safetensors"
    write_tensors(inputs, transformer_inputs(json.loads((case / "transformer" / "config.json").read_text())))

    def run(ulysses, ring, dtype, *more, **variables):
        output = bench.folder / f"{ulysses}-{ring}.safetensors"
        bench.call("forward", "--model", case, "--inputs", inputs, "--output", output, *bench.on(dtype),
                   "--num-gpus", ulysses * ring, "--ulysses-degree", ulysses, "--ring-degree", ring, *more, **variables)
        return read_tensor(output)

    for dtype in bench.args.dtypes:
        one = report.step(f"1 rank {dtype}", lambda: run(1, 1, dtype))
        if one is None:
            continue
        fabric = "nccl" if bench.args.device.startswith("cuda") else "tcp"
        world = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        for name, work in (
            (f"2 ranks, ulysses, {dtype}", lambda: run(2, 1, dtype)),
            (f"4 ranks, ulysses, {dtype}", lambda: run(4, 1, dtype)),
            (f"1 process, {fabric}, {dtype}", lambda: run(1, 1, dtype, "--fabric", fabric, **world)),
        ):
            found = report.step(name, work)
            if found is not None:
                same = found == one
                report.add(name, "same bits" if same else "differs", f"error {error(found, one):.1e}", HELD if same else FAILED)
        for ulysses, ring in ((1, 2), (2, 2)):
            name = f"{ulysses * ring} ranks, ring {ring}, {dtype}"
            wrong = report.step(name, lambda: error(run(ulysses, ring, dtype), one))
            if wrong is not None:
                report.compare(name, wrong, RING if dtype == "f32" else LIMITS[dtype])


# Every kernel and every reference case.


def suites(bench):
    """All tests of kernels and libraries; those of times are a phase of their own."""
    for name in ("cuda_device", "cube"):
        program = bench.test_program(name)
        if program is not None:
            bench.report.step(f"kernels: {name}", lambda: suite(bench, name, program))


def suite(bench, name, program):
    report = bench.report
    done = bench.tests(program, "--skip", "best::", "--test-threads", str(WORKERS))
    lines = done.stdout.splitlines()
    summary = [line for line in lines if line.startswith("test result:")]
    passed = sum(line.endswith("... ok") for line in lines)
    for line in lines:
        if line.startswith("test ") and line.endswith("FAILED"):
            test = line.split()[1]
            # The first line of the panic behind the name of the test.
            told = done.stdout.partition(f"---- {test} stdout ----")[2].strip().splitlines()
            report.add(f"kernels: {name} {test}", "FAILED", " ".join(told[:4])[:400], FAILED)
    sound = done.returncode == 0 and bool(summary)
    note = summary[0] if summary else (done.stderr.strip().splitlines() or ["no result"])[-1]
    report.add(f"kernels: {name}", f"{passed} passed", note, HELD if sound else FAILED)


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


def cases(bench):
    """All cases side by side against the CPU of the same program; each has files of its own."""
    report, folder = bench.report, bench.folder

    def case(number, name, command):
        expected = {dtype: folder / f"cpu-{number}-{dtype}.safetensors" for dtype in ("f32", "fp8")}

        def on_cpu():
            for dtype, output in expected.items():
                bench.call(*command, "--output", output, "--dtype", dtype)
            return {dtype: read_tensor(output) for dtype, output in expected.items()}

        numbers = report.step(name, on_cpu)
        for dtype in bench.args.dtypes if numbers is not None else []:
            found = folder / f"gpu-{number}-{dtype}.safetensors"

            def compare():
                bench.call(*command, "--output", found, *bench.on(dtype))
                output = read_tensor(found)
                note = f"{error(output, numbers['f32']):.1e} against f32" if dtype == "fp8" else ""
                wrong = error(output, numbers["fp8" if dtype == "fp8" else "f32"])
                report.compare(f"{name} {dtype}", wrong, LIMITS[dtype], note)

            report.step(f"{name} {dtype}", compare)

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda part: case(part[0], *part[1]), enumerate(parts(folder))))
