#!/usr/bin/env python3
"""torch and diffusers at the sizes of ours. validate.py starts it, so that it can be stopped in time.

    python3 benches/gpu/peers.py kernels|step|decode|truth --sizes JSON [--folder DIR]

Prints one JSON object per line as soon as it is known: `what`, and `seconds`, `peak_bytes`, `error` or `problem`.
`truth` writes a checkpoint with random weights, its inputs, and what torch makes of them in f32, for ours to be compared with.
"""
import argparse
import json
import time
from pathlib import Path

import torch

CONFIGS = Path(__file__).resolve().parents[2] / "models" / "configs"


def say(what, **facts):
    print(json.dumps({"what": what, **facts}), flush=True)


def attempt(what, work):
    """Says what `work` found, or why there is nothing."""
    try:
        say(what, **work())
    except Exception as problem:  # The others still have something to say.
        say(what, problem=next(iter(str(problem).strip().splitlines()), type(problem).__name__))


class Sizes:
    """What is measured: the sizes of validate.py."""

    def __init__(self, text):
        self.__dict__.update(json.loads(text))

    @property
    def on_gpu(self):
        return self.device.startswith("cuda")

    @property
    def half(self):
        """The type that is timed; a CPU that rehearses has none of 16 bits worth waiting for."""
        return torch.bfloat16 if self.on_gpu else torch.float32

    def wait(self):
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, function, repeats=1):
        """Median seconds of a call, which does its work `repeats` times."""
        taken = []
        for run in range(self.runs + 2):
            begun = time.perf_counter()
            for _ in range(repeats):
                function()
            self.wait()
            # What is compiled or chosen at first use does not count.
            if run >= 2:
                taken.append((time.perf_counter() - begun) / repeats)
        return sorted(taken)[len(taken) // 2]

    def measured(self, function):
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        facts = {"seconds": self.seconds(function)}
        if self.on_gpu:
            facts["peak_bytes"] = torch.cuda.max_memory_allocated()
        return facts

    def noise(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=self.half)


def backends(sizes):
    """Attention implementations of torch that run here, the fastest first, with their times."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    tokens, heads, dim = sizes.attention
    q, k, v = (sizes.noise(2, heads, tokens, dim) for _ in range(3))
    found = []
    kinds = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION] if sizes.on_gpu else [SDPBackend.MATH]
    for backend in kinds:
        def run():
            with sdpa_kernel(backend):
                torch.nn.functional.scaled_dot_product_attention(q, k, v)
        try:
            found.append((sizes.seconds(run, 4), backend))
        except RuntimeError:
            continue
    return sorted(found, key=lambda entry: entry[0])


def kernels(sizes):
    for rows, k, n in sizes.gemms:
        x, weight, bias = sizes.noise(rows, k), sizes.noise(n, k), sizes.noise(n)
        linear = torch.nn.functional.linear
        attempt(f"torch product {rows} x {k} x {n}", lambda: {"seconds": sizes.seconds(lambda: linear(x, weight, bias), 4)})
    for seconds, backend in backends(sizes):
        say(f"torch attention, {backend.name.lower()}", seconds=seconds)


def rotary(config, latents):
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    grid = [side // config["patch_size"] for side in latents[1:]]
    return get_3d_rotary_pos_embed(config["attention_head_dim"], ((0, 0), grid), grid, latents[0])


def transformer(sizes, preset, layers, dtype):
    """A model with random weights for exactly these latents, and its inputs without those of the batch."""
    from diffusers import CogVideoXTransformer3DModel

    config = json.loads((CONFIGS / f"transformer-{preset}.json").read_text())
    frames, height, width = sizes.latents
    config |= {"sample_height": height, "sample_width": width,
               "sample_frames": (frames - 1) * config["temporal_compression_ratio"] + 1}
    if layers:
        config["num_layers"] = layers
    torch.set_default_dtype(dtype)
    with torch.device(sizes.device):
        model = CogVideoXTransformer3DModel.from_config(config).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    extra = {"return_dict": False}
    if config["use_rotary_positional_embeddings"]:
        extra["image_rotary_emb"] = tuple(table.to(sizes.device) for table in rotary(config, sizes.latents))
    return model, config, extra


def inputs_of(config, sizes, batch):
    frames, height, width = sizes.latents
    given = {"device": sizes.device, "generator": torch.Generator(sizes.device).manual_seed(1)}
    return {
        "hidden_states": torch.randn(batch, frames, config["in_channels"], height, width, **given),
        "encoder_hidden_states": torch.randn(batch, config["max_text_seq_length"], config["text_embed_dim"], **given),
        "timestep": torch.full((batch,), 500.0, device=sizes.device),
    }


def halved(inputs, dtype):
    """Tensors in a narrower type, but for the times."""
    return {name: tensor.to(dtype) if tensor.dim() > 1 else tensor for name, tensor in inputs.items()}


def step(sizes):
    from torch.nn.attention import sdpa_kernel

    found = backends(sizes)
    for seconds, backend in found:
        say(f"torch attention, {backend.name.lower()}", seconds=seconds)
    for preset in sizes.presets:
        model, config, extra = transformer(sizes, preset, sizes.layers, sizes.half)
        inputs = halved(inputs_of(config, sizes, 2), sizes.half)
        for name, part in (("eager", model), ("torch.compile", torch.compile(model))):
            def run():
                with sdpa_kernel(found[0][1]):
                    part(**inputs, **extra)
            attempt(f"diffusers {name}, batch 2 of {preset}", lambda: sizes.measured(run))
        del model, part
        torch.compiler.reset()


def vae(sizes, dtype):
    from diffusers import AutoencoderKLCogVideoX

    config = json.loads((CONFIGS / "vae.json").read_text())
    with torch.device(sizes.device):
        model = AutoencoderKLCogVideoX.from_config(config).eval().requires_grad_(False)
    return model.to(dtype), config


def decode(sizes):
    torch.backends.cudnn.benchmark = True
    model, config = vae(sizes, sizes.half)
    latents = sizes.noise(1, config["latent_channels"], *sizes.latents)
    attempt("diffusers eager, decode", lambda: sizes.measured(lambda: model.decode(latents, return_dict=False)))


def truth(sizes, folder):
    """The first of the presets with few layers, and the decoder at a small size."""
    from safetensors.torch import save_file

    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    model, config, extra = transformer(sizes, sizes.presets[0], sizes.truth_layers, torch.float32)
    model.save_pretrained(folder / "transformer")
    inputs = inputs_of(config, sizes, 1)
    save_file(inputs, folder / "inputs.safetensors")
    expected = model(**inputs, **extra)[0]
    save_file({"sample": expected}, folder / "sample.safetensors")
    say("wrote the transformer", parameters=sum(p.numel() for p in model.parameters()))
    found = model.bfloat16()(**halved(inputs, torch.bfloat16), **extra)[0]
    say("torch forward bf16", error=relative(found, expected))
    model, config = vae(sizes, torch.float32)
    model.save_pretrained(folder / "vae")
    # As the config has it, or as diffusers has it for configs that say nothing.
    factor = model.config.scaling_factor
    latents = torch.randn(1, sizes.truth_latents[0], config["latent_channels"], *sizes.truth_latents[1:], device=sizes.device)
    save_file({"latents": latents}, folder / "latents.safetensors")

    def frames(model, latents):
        latents = latents.permute(0, 2, 1, 3, 4) / factor
        return model.decode(latents, return_dict=False)[0].permute(0, 2, 1, 3, 4).contiguous()

    expected = frames(model, latents)
    save_file({"frames": expected}, folder / "frames.safetensors")
    say("torch decode bf16", error=relative(frames(model.bfloat16(), latents.bfloat16()), expected))


def relative(found, expected):
    return ((found.float() - expected).norm() / expected.norm()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kernels", "step", "decode", "truth"])
    parser.add_argument("--sizes", type=Sizes, required=True)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with torch.inference_mode():
        if args.what == "truth":
            truth(args.sizes, args.folder)
        else:
            {"kernels": kernels, "step": step, "decode": decode}[args.what](args.sizes)


if __name__ == "__main__":
    main()
