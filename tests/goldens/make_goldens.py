#!/usr/bin/env python3
"""Writes the reference cases of this folder with stock diffusers and transformers, float32 on the CPU.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 safetensors==0.8.0 sentencepiece==0.2.3
    python make_goldens.py                  # everything but demo/, into the folder of this script
    python make_goldens.py --only t5-v1.1   # one case
    python make_goldens.py --demo FILE      # demo/ as well, from the reference file of the demo checkpoint

Every weight is drawn from a seeded generator (norm scales, biases and modulation included), so a case fails
when any tensor is dropped, swapped or transposed. README.md says what each case holds; MANIFEST.json records
versions, seeds and digests.
"""
import argparse
import hashlib
import json
import math
import shutil
from pathlib import Path

import diffusers
import safetensors
import torch
import transformers
from diffusers import (AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline,
                       CogVideoXTransformer3DModel)
from diffusers.schedulers import scheduling_dpm_cogvideox as dpm_module
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5Config, T5EncoderModel

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / "models" / "demo"
PROMPT = "a red circle moving right on a black background"
seeds = {}


def seeded(name):
    """A generator whose seed is a function of the case's name alone, so that cases do not disturb each other."""
    seeds[name] = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return torch.Generator().manual_seed(seeds[name])


def fill(module, gen):
    """Random parameters: matrices keep the scale of their input, scales stay near 1, biases are not small."""
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=gen)
        if p.dim() == 1 and name.endswith("weight"):
            p.data = 1 + 0.25 * noise
        elif p.dim() == 1:
            p.data = 0.2 * noise
        else:
            fan_in = p[0].numel()
            # Modulation is added to 1: smaller, so that gates and scales differ without exploding over blocks.
            gain = 0.6 if "norm" in name else 1.0
            p.data = gain / math.sqrt(fan_in) * noise
    return module.eval().requires_grad_(False)


def write(folder, name, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    for key, value in tensors.items():
        assert torch.isfinite(value.float()).all(), (folder, name, key)
    save_file(tensors, str(folder / f"{name}.safetensors"))


# --- transformer ----------------------------------------------------------------------------------------------

BASE = dict(num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=24,
            text_embed_dim=20, num_layers=2, sample_width=12, sample_height=8, sample_frames=9,
            max_text_seq_length=5, spatial_interpolation_scale=1.875, temporal_interpolation_scale=1.0)
ROTARY = dict(BASE, use_rotary_positional_embeddings=True, max_text_seq_length=9, spatial_interpolation_scale=1.0)
V15 = dict(ROTARY, patch_size_t=2, patch_bias=False)


def run(name="case", frames=3, height=8, width=12, text=7, batch=1, fractional=False):
    """One forward: latent frames, latent rows and columns, text tokens."""
    return dict(name=name, frames=frames, height=height, width=width, text=text, batch=batch, fractional=fractional)


TRANSFORMERS = {
    "sincos-native": (dict(BASE, num_attention_heads=3), [run(text=5), run("batch-2", text=5, batch=2)]),
    "sincos-other-size": (dict(BASE, spatial_interpolation_scale=2.5, temporal_interpolation_scale=1.5),
                          [run(frames=2, height=6, width=10, text=5),
                           run("longer", frames=5, height=8, width=12, text=5)]),
    "rotary-native": (dict(ROTARY, num_attention_heads=3), [run(), run("full-text", text=9)]),
    "rotary-other-size": (ROTARY, [run(frames=2, height=6, width=10), run("tall", frames=4, height=14, width=6),
                                   run("rows-30", frames=1, height=60, width=4)]),
    "five-heads": (dict(ROTARY, num_attention_heads=5, num_layers=1, sample_height=10, sample_width=18),
                   [run(frames=2, height=10, width=18)]),
    "batch-2": (ROTARY, [run(batch=2), run("batch-3", frames=1, height=6, width=6, batch=3, fractional=True)]),
    "head-dim-64": (dict(ROTARY, num_attention_heads=1, attention_head_dim=64, num_layers=1), [run()]),
    "v1.5-patch-t": (dict(V15, sample_width=16, sample_height=10),
                     [run(frames=4, height=10, width=16), run("smaller", frames=2, height=6, width=14)]),
    "v1.5-ofs": (dict(V15, in_channels=32, out_channels=16, ofs_embed_dim=24),
                 [run(frames=4), run("batch-2", frames=2, batch=2)]),
    "learned-positions": (dict(ROTARY, in_channels=8, use_learned_positional_embeddings=True),
                          [run(text=9), run("other-frames", frames=2, text=9)]),
    "embeddings": (dict(ROTARY, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-2, attention_bias=False,
                        patch_bias=False), [run(fractional=True)]),
    "plain-norms": (dict(BASE, norm_elementwise_affine=False, patch_size=1, sample_height=5, sample_width=7),
                    [run(height=5, width=7, text=5)]),
    "activation-gelu": (dict(ROTARY, activation_fn="gelu", timestep_activation_fn="gelu"), [run()]),
    "bf16-weights": (dict(ROTARY, attention_head_dim=32), [run()]),
    "sharded-checkpoint": (ROTARY, [run()]),
}


def rotary(model, spec):
    """The tables exactly as the pipeline computes them: sizes in pixels, latent frames with their padding."""
    if not model.config.use_rotary_positional_embeddings:
        return None
    pipe = CogVideoXPipeline.__new__(CogVideoXPipeline)
    # Only these two attributes are read; building a pipeline would need all five parts.
    object.__setattr__(pipe, "transformer", model)
    object.__setattr__(pipe, "vae_scale_factor_spatial", 8)
    return pipe._prepare_rotary_positional_embeddings(spec["height"] * 8, spec["width"] * 8, spec["frames"],
                                                      torch.device("cpu"))


def transformer(name, out):
    config, runs = TRANSFORMERS[name]
    gen = seeded(name)
    model = fill(CogVideoXTransformer3DModel(**config), gen)
    if config.get("use_learned_positional_embeddings"):
        buffer = model.patch_embed.pos_embedding
        # The text's part is stored too and is added like the rest.
        buffer.copy_(0.5 * torch.randn(buffer.shape, generator=gen))
    if name == "bf16-weights":
        model = model.to(torch.bfloat16)
    shard = {"max_shard_size": "100KB"} if name == "sharded-checkpoint" else {}
    model.save_pretrained(str(out / "transformer"), **shard)
    if name == "sharded-checkpoint":
        assert len(list((out / "transformer").glob("*-of-00002.safetensors"))) == 2
    model = model.to(torch.float32)
    for spec in runs:
        b, t = spec["batch"], torch.tensor([951, 7, 480])[:spec["batch"]]
        if spec["fractional"]:
            t = t.float() - 0.375
        inputs = {
            "hidden_states": torch.randn(b, spec["frames"], config["in_channels"], spec["height"], spec["width"],
                                         generator=gen),
            "encoder_hidden_states": torch.randn(b, spec["text"], config["text_embed_dim"], generator=gen),
            "timestep": t,
        }
        if config.get("ofs_embed_dim"):
            inputs["ofs"] = torch.full((b,), 2.0)
        rope = rotary(model, spec)
        sample = model(**inputs, image_rotary_emb=rope, return_dict=False)[0]
        assert 0.3 < sample.std() < 3, (name, sample.std())
        tables = {} if rope is None else {"rope_cos": rope[0], "rope_sin": rope[1]}
        write(out, spec["name"], inputs | tables | {"sample": sample})


# --- text encoder ---------------------------------------------------------------------------------------------

T5 = {
    "t5-v1.1": dict(d_model=24, d_kv=8, num_heads=3, d_ff=40, num_layers=3, vocab_size=64),
    "t5-other-buckets": dict(d_model=20, d_kv=4, num_heads=5, d_ff=24, num_layers=2, vocab_size=48,
                             relative_attention_num_buckets=16, relative_attention_max_distance=40,
                             layer_norm_epsilon=1e-3),
}


def text_encoder(name, out):
    gen = seeded(name)
    model = T5EncoderModel(T5Config(**T5[name], feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    fill(model, gen)
    for key, p in model.named_parameters():
        if "relative_attention_bias" in key or "shared" in key or "embed_tokens" in key:
            # Embeddings are rows, not matrices to multiply with.
            p.data = torch.randn(p.shape, generator=gen)
        elif key.endswith("SelfAttention.q.weight"):
            # T5 does not scale its scores; the scale lives in the weights.
            p.data /= math.sqrt(T5[name]["d_kv"])
    model.encoder.embed_tokens.weight = model.shared.weight
    model.save_pretrained(str(out / "text_encoder"))
    # 226 is the real models' length and lies beyond the last bucket's distance; 17 is odd and short.
    for length, batch in ((17, 2), (226, 1)):
        ids = torch.randint(2, T5[name]["vocab_size"], (batch, length), generator=gen)
        # Padding is attended to, as in the pipeline, which passes no mask.
        ids[0, -5:] = torch.tensor([1, 0, 0, 0, 0])
        write(out, f"length-{length}", {"input_ids": ids, "last_hidden_state": model(ids)[0]})


# --- VAE ------------------------------------------------------------------------------------------------------

VAE = {
    "vae-four-blocks": (dict(block_out_channels=(4, 8, 12, 8), layers_per_block=2, norm_num_groups=4,
                             latent_channels=6, temporal_compression_ratio=4, scaling_factor=1.3),
                        [(1, 6, 9, 1), (2, 3, 5, 1), (3, 4, 7, 1), (5, 3, 4, 1), (3, 1, 2, 2)]),
    "vae-three-blocks": (dict(block_out_channels=(6, 12, 12), layers_per_block=1, norm_num_groups=3,
                              latent_channels=4, temporal_compression_ratio=2, scaling_factor=0.7, norm_eps=1e-4,
                              down_block_types=("CogVideoXDownBlock3D",) * 3,
                              up_block_types=("CogVideoXUpBlock3D",) * 3),
                         [(4, 5, 7, 1), (7, 3, 5, 1)]),
}


def vae(name, out):
    config, sizes = VAE[name]
    gen = seeded(name)
    model = fill(AutoencoderKLCogVideoX(**config), gen)
    model.save_pretrained(str(out / "vae"))
    for frames, height, width, batch in sizes:
        latents = torch.randn(batch, frames, config["latent_channels"], height, width, generator=gen)
        # As CogVideoXPipeline.decode_latents does.
        z = 1 / config["scaling_factor"] * latents.permute(0, 2, 1, 3, 4)
        video = model.decode(z).sample.permute(0, 2, 1, 3, 4)
        label = f"frames-{frames}" + (f"-batch-{batch}" if batch > 1 else "")
        write(out, label, {"latents": latents, "frames": video})


# --- schedulers -----------------------------------------------------------------------------------------------

REAL = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            rescale_betas_zero_snr=True, timestep_spacing="trailing", snr_shift_scale=3.0, set_alpha_to_one=True)
SCHEDULERS = {
    "trailing": (REAL, 7),
    "v1.5": (dict(REAL, snr_shift_scale=1.0), 10),
    "leading-epsilon": (dict(REAL, timestep_spacing="leading", prediction_type="epsilon", steps_offset=1,
                             rescale_betas_zero_snr=False, set_alpha_to_one=False, beta_schedule="linear",
                             beta_start=0.0001, beta_end=0.02), 8),
    "linspace-sample": (dict(REAL, timestep_spacing="linspace", prediction_type="sample",
                             beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=False), 6),
    "short-training": (dict(REAL, num_train_timesteps=400, snr_shift_scale=2.0), 9),
}


def scheduler(name, out):
    kind, variant = name.removeprefix("scheduler-").split("-", 1)
    config, steps = SCHEDULERS[variant]
    cls = CogVideoXDDIMScheduler if kind == "ddim" else CogVideoXDPMScheduler
    s = cls(**config)
    s.save_pretrained(str(out / "scheduler"))
    s.set_timesteps(steps)
    gen, shape, old = seeded(name), (1, 2, 3, 4, 5), None
    x = torch.randn(shape, generator=gen)
    outputs, states, noises = [x.clone()], [], []
    models = torch.randn((steps, *shape), generator=gen)
    real = dpm_module.randn_tensor
    drawn = []

    def recording(size, generator=None, device=None, dtype=None, **kw):
        drawn.append(torch.randn(size, generator=gen))
        return drawn[-1]

    dpm_module.randn_tensor = recording
    for i, t in enumerate(s.timesteps):
        if kind == "ddim":
            x = s.step(models[i], t, x, return_dict=False)[0]
        else:
            back = s.timesteps[i - 1] if i > 0 else None
            x, old = s.step(models[i], old, t, back, x, return_dict=False)
            noises.append(drawn[-1])
        states.append(x)
    dpm_module.randn_tensor = real
    tensors = {"initial": outputs[0], "model_outputs": models, "samples": torch.stack(states),
               "timesteps": s.timesteps.to(torch.int64), "alphas_cumprod": s.alphas_cumprod.float()}
    if noises:
        tensors["noise"] = torch.stack(noises)
    write(out, "case", tensors)


# --- demo -----------------------------------------------------------------------------------------------------

TEXTS = ["", " ", PROMPT, "A Red CIRCLE", "a  red   circle", "  leading and trailing  ", "tabs\tand\nnew lines",
         "a red circle, moving right.", "don't stop; it's 42% done!", "naïve café – déjà vu", "ｆｕｌｌ ｗｉｄｔｈ",
         "ﬁne ligature ½", "красный круг", "赤い円", "🙂 a smile", "zero\u200bwidth\u00a0space", "a▁b", "</s> <pad> <unk>",
         "a red circle moving right on a black background " * 6, "x" * 300]
DYNAMIC = dict(height=80, width=112, num_frames=9, num_inference_steps=4, guidance_scale=5.0)


def tokens():
    tok = AutoTokenizer.from_pretrained(str(DEMO / "tokenizer"))
    cases = []
    for text in TEXTS:
        full = tok(text, add_special_tokens=True).input_ids
        cut = tok(text, padding="max_length", max_length=32, truncation=True, add_special_tokens=True).input_ids
        cases.append({"text": text, "ids": list(full), "ids_32": list(cut)})
    return cases


def demo_dynamic(name, out):
    """The demo away from its native size: rotary crop, dynamic guidance, the DPM scheduler and a negative prompt."""
    gen = seeded(name)
    pipe = CogVideoXPipeline.from_pretrained(str(DEMO), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
    start = torch.randn(1, 3, 16, 10, 14, generator=gen)
    trace, scales, drawn, real = [], [], [], dpm_module.randn_tensor

    def recording(size, generator=None, device=None, dtype=None, **kw):
        drawn.append(torch.randn(size, generator=gen))
        return drawn[-1]

    used = []

    def keep(p, i, t, kw):
        trace.append(kw["latents"].clone())
        scales.append(p.guidance_scale)
        used.append(drawn[-1])
        return kw

    dpm_module.randn_tensor = recording
    latents = pipe(prompt=PROMPT, negative_prompt="a blue square", latents=start.clone(), use_dynamic_cfg=True,
                   max_sequence_length=32, output_type="latent", callback_on_step_end=keep, **DYNAMIC).frames
    dpm_module.randn_tensor = real
    video = pipe.decode_latents(latents).permute(0, 2, 1, 3, 4)
    write(out, "dynamic", {"latents_init": start, "latents": torch.cat(trace), "noise": torch.cat(used),
                           "guidance": torch.tensor(scales, dtype=torch.float64), "timesteps": pipe.scheduler.timesteps,
                           "frames": video.half()})


def demo_golden(source, out):
    """The reference file of the demo without what no test needs.

    Videos become float16 (relative rounding 2^-11, far inside the 1e-2 asked for), of the second one only every
    fourth frame is kept, and the states behind the last block go.
    """
    tensors = {k: v for k, v in load_file(str(source)).items() if not k.startswith("dit_block_last")}
    with safe_open(str(source), "pt") as f:
        metadata = dict(f.metadata())
    tensors["ddim_video"] = tensors["ddim_video"].half()
    tensors["dpm_video_frames_0_4_8_12_16"] = tensors.pop("dpm_video")[:, :, ::4].half().contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(out / "golden.safetensors"), metadata=dict(sorted(metadata.items())))


# --------------------------------------------------------------------------------------------------------------

def manifest():
    files = sorted(p for p in HERE.rglob("*") if p.suffix in (".safetensors", ".json") and p.name != "MANIFEST.json")
    digests = {str(p.relative_to(HERE)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__,
                "transformers": transformers.__version__, "safetensors": safetensors.__version__}
    path = HERE / "MANIFEST.json"
    old = json.loads(path.read_text())["seeds"] if path.exists() else {}
    body = {"versions": versions, "seeds": dict(sorted((old | seeds).items())), "sha256": digests}
    path.write_text(json.dumps(body, indent=1) + "\n")
    print(f"{sum(p.stat().st_size for p in files) / 1e6:.2f} MB in {len(files)} files")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only", help="one case by its folder's name")
    ap.add_argument("--demo", type=Path, help="reference file of the demo checkpoint, copied into demo/")
    args = ap.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    makers = {n: transformer for n in TRANSFORMERS} | {n: text_encoder for n in T5} | {n: vae for n in VAE}
    makers |= {f"scheduler-{k}-{n}": scheduler for k in ("ddim", "dpm") for n in SCHEDULERS}
    for name, make in makers.items():
        if args.only in (None, name):
            shutil.rmtree(HERE / name, ignore_errors=True)
            with torch.no_grad():
                make(name, HERE / name)
    if args.only in (None, "demo"):
        with torch.no_grad():
            demo_dynamic("demo", HERE / "demo")
        (HERE / "demo" / "tokens.json").write_text(json.dumps(tokens(), indent=1, ensure_ascii=True) + "\n")
    if args.demo:
        demo_golden(args.demo, HERE / "demo")
    manifest()


if __name__ == "__main__":
    main()
