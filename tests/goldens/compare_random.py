#!/usr/bin/env python3
"""Compares Terrace with diffusers and transformers on random models, sizes and meshes.

    cargo build --release
    python compare_random.py transformer --cases 40 --seed 1
    python compare_random.py vae --cases 20
    python compare_random.py text --cases 8
    python compare_random.py bf16 --cases 20

Needs the packages of make_goldens.py. Prints one line for every result that is not within 1e-5 of the
reference (relative L2), or that differs from one rank where bits must agree, and the worst error at the end;
exits with 1 when there was such a line. Degrees that a size cannot serve are skipped. `bf16` judges both by the
reference in f32: what it prints and limits is the error of Terrace in bf16 over that of the reference in bf16.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from make_goldens import DEMO, PROMPT, fill, rotary

LIMIT = 1e-5
TERRACE = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target")) / "release" / "terrace"


def terrace(folder, output, *args):
    """The tensor that a command writes, or None when it refuses the degrees."""
    out = folder / "out.safetensors"
    command = [str(TERRACE), *map(str, args), "--output", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        if "cannot be served" not in ran.stderr:
            raise SystemExit(f"{' '.join(command)}: {ran.stderr}")
        return None
    return load_file(out)[output]


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item() if found.shape == expected.shape else float("inf")


def random_transformer(rng, gen, folder):
    """A random config of one of the variants with its model and inputs, saved to the folder."""
    kind = rng.choice(["2b", "5b", "1.5", "i2v", "1.5-i2v"])
    config = dict(num_attention_heads=rng.choice([1, 2, 3, 4, 5, 6, 7, 9]),
                  attention_head_dim=rng.choice([16, 32, 48, 64]), num_layers=rng.randint(1, 3),
                  in_channels=rng.choice([4, 8, 16]), time_embed_dim=rng.choice([16, 32]),
                  text_embed_dim=rng.choice([8, 20, 64]), max_text_seq_length=rng.choice([3, 7, 11]),
                  sample_width=rng.choice([12, 16, 20]), sample_height=rng.choice([8, 12, 14]),
                  sample_frames=rng.choice([9, 17]), norm_eps=rng.choice([1e-5, 1e-6]),
                  attention_bias=rng.random() < 0.8, norm_elementwise_affine=rng.random() < 0.9)
    config["out_channels"] = config["in_channels"]
    frames, height, width = rng.choice([1, 2, 3, 5]), 2 * rng.randint(2, 9), 2 * rng.randint(2, 9)
    text = rng.randint(1, config["max_text_seq_length"])
    if kind == "2b":
        config |= dict(spatial_interpolation_scale=rng.choice([1.875, 1.0]))
        text = config["max_text_seq_length"]
    else:
        config |= dict(use_rotary_positional_embeddings=True)
    if kind.startswith("1.5"):
        config |= dict(patch_size_t=2, patch_bias=False)
        frames = rng.choice([2, 4])
        height, width = min(height, config["sample_height"]), min(width, config["sample_width"])
    if kind.endswith("i2v"):
        config["in_channels"] *= 2
    if kind == "i2v":
        config |= dict(use_learned_positional_embeddings=True)
        frames, text = (config["sample_frames"] - 1) // 4 + 1, config["max_text_seq_length"]
        height, width = config["sample_height"], config["sample_width"]
    if kind == "1.5-i2v":
        config |= dict(ofs_embed_dim=config["time_embed_dim"])
    model = fill(CogVideoXTransformer3DModel(**config), gen)
    batch = rng.choice([1, 2, 3])
    inputs = dict(hidden_states=torch.randn(batch, frames, config["in_channels"], height, width, generator=gen),
                  encoder_hidden_states=torch.randn(batch, text, config["text_embed_dim"], generator=gen),
                  timestep=torch.tensor([951, 7, 480])[:batch])
    if "ofs_embed_dim" in config:
        inputs["ofs"] = torch.full((batch,), 2.0)
    inputs["image_rotary_emb"] = rotary(model, dict(frames=frames, height=height, width=width))
    model.save_pretrained(folder / "transformer")
    save_file({name: x for name, x in inputs.items() if torch.is_tensor(x)}, folder / "in.safetensors")
    return kind, config, model, inputs


def bf16(rng, gen, folder):
    """One random config of one of the variants, all in bf16."""
    kind, config, model, inputs = random_transformer(rng, gen, folder)
    expected = model(**inputs, return_dict=False)[0]
    # Time steps and rotary tables keep their types, as in the pipeline.
    half = {name: x.bfloat16() if torch.is_tensor(x) and x.dim() > 1 else x for name, x in inputs.items()}
    theirs = error(model.bfloat16()(**half, return_dict=False)[0].float(), expected)
    for flags in [], ["--num-gpus", rng.randint(2, 6)]:
        sample = terrace(folder, "sample", "forward", "--model", folder, "--inputs", folder / "in.safetensors",
                         "--dtype", "bf16", "--threads", 1, *flags)
        if sample is not None:
            yield error(sample, expected) / theirs, (kind, config, list(inputs["hidden_states"].shape), flags)


def transformer(rng, gen, folder):
    """One random config of one of the variants, on several meshes."""
    kind, config, model, inputs = random_transformer(rng, gen, folder)
    expected = model(**inputs, return_dict=False)[0]
    batch = len(inputs["hidden_states"])
    heads = config["num_attention_heads"]
    exact = [[], ["--ulysses-degree", rng.randint(1, heads)],
             ["--cfg-degree", min(batch, 2), "--ulysses-degree", rng.randint(1, heads)]]
    rounded = [["--num-gpus", rng.randint(2, 9)],
               ["--ring-degree", rng.randint(2, 5), "--ulysses-degree", rng.randint(1, heads),
                "--slice-granularity", rng.choice(["row", "cell"])]]
    one = None
    for flags in exact + rounded:
        sample = terrace(folder, "sample", "forward", "--model", folder, "--inputs", folder / "in.safetensors",
                         "--threads", 1, *flags)
        if sample is None:
            continue
        one = sample if one is None else one
        bits = flags not in exact or torch.equal(sample, one)
        yield error(sample, expected) if bits else float("inf"), (kind, config, list(inputs["hidden_states"].shape), flags)


def vae(rng, gen, folder):
    """One random decoder, frames odd and even."""
    blocks, groups = rng.choice([2, 3, 4]), rng.choice([2, 4])
    config = dict(block_out_channels=tuple(groups * rng.choice([2, 3, 4]) for _ in range(blocks)),
                  layers_per_block=rng.randint(1, 3), norm_num_groups=groups, latent_channels=rng.choice([4, 16]),
                  temporal_compression_ratio=rng.choice([1, 2, 4][:blocks]), scaling_factor=rng.choice([0.7, 1.15258426]),
                  down_block_types=("CogVideoXDownBlock3D",) * blocks, up_block_types=("CogVideoXUpBlock3D",) * blocks)
    model = fill(AutoencoderKLCogVideoX(**config), gen)
    shape = (rng.choice([1, 1, 2]), rng.randint(1, 8), config["latent_channels"], rng.randint(1, 7), rng.randint(1, 7))
    latents = torch.randn(shape, generator=gen)
    scaled = 1 / config["scaling_factor"] * latents.permute(0, 2, 1, 3, 4)
    expected = model.decode(scaled).sample.permute(0, 2, 1, 3, 4)
    model.save_pretrained(folder / "vae")
    save_file({"latents": latents}, folder / "in.safetensors")
    frames = terrace(folder, "frames", "decode", "--model", folder, "--latents", folder / "in.safetensors")
    yield error(frames, expected), (config, shape)


def text(rng, gen, folder):
    """One random encoder behind the tokenizer of the demo checkpoint."""
    d_kv = rng.choice([4, 8, 64])
    config = dict(d_model=rng.choice([16, 24, 64]), d_kv=d_kv, num_heads=rng.choice([1, 3, 4, 7]),
                  d_ff=rng.choice([20, 40, 128]), num_layers=rng.randint(1, 4), vocab_size=512,
                  relative_attention_num_buckets=rng.choice([8, 32, 64]),
                  relative_attention_max_distance=rng.choice([64, 128]))
    model = fill(T5EncoderModel(T5Config(**config, feed_forward_proj="gated-gelu")), gen)
    for name, p in model.named_parameters():
        if name.endswith("SelfAttention.q.weight"):
            # T5 does not scale its scores; the scale lives in the weights.
            p.data /= d_kv ** 0.5
    shutil.copytree(DEMO / "tokenizer", folder / "tokenizer")
    model.save_pretrained(folder / "text_encoder")
    length = rng.choice([1, 5, 32, 226, 400])
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
    ids = tokenizer(PROMPT, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    found = terrace(folder, "prompt_embeds", "encode-text", "--model", folder, "--prompt", PROMPT,
                    "--max-sequence-length", length)
    yield error(found, model(ids)[0]), (config, length)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("part", choices=["transformer", "vae", "text", "bf16"])
    ap.add_argument("--cases", type=int, default=10)
    ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()
    part = dict(transformer=transformer, vae=vae, text=text, bf16=bf16)[args.part]
    limit = 1.0 if args.part == "bf16" else LIMIT
    rng, worst, bad = random.Random(args.seed), 0.0, 0
    for _ in range(args.cases):
        gen = torch.Generator().manual_seed(rng.randrange(1 << 30))
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            for found, what in part(rng, gen, Path(folder)):
                worst = max(worst, found)
                if found > limit:
                    bad += 1
                    print(found, *what)
    print(f"{args.cases} cases, worst error {worst:.1e}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
