"""Writes reference.json: small expected values for tests/reference.rs.

Needs torch, diffusers 0.42 and transformers: python generate.py
Inputs are exact binary fractions, so that the JSON holds them without rounding.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXCausalConv3d,
    CogVideoXSpatialNorm3D,
)
from diffusers.models.embeddings import (
    apply_rotary_emb,
    get_3d_rotary_pos_embed,
    get_3d_sincos_pos_embed,
    get_timestep_embedding,
)
from diffusers.models.upsampling import CogVideoXUpsample3D
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from transformers.models.t5.modeling_t5 import T5Attention

torch.manual_seed(7)


def draw(*shape):
    return torch.randint(-256, 257, shape).float() / 128


def flat(x):
    return [float(f"{v:.9g}") for v in x.detach().float().flatten().tolist()]


def last(x):
    """[b, c, f, y, x] to channels last."""
    return x.permute(0, 2, 3, 4, 1)


def upsample():
    cases = []
    for compress in (False, True):
        for frames in (1, 2, 3, 4, 5):
            layer = CogVideoXUpsample3D(2, 2, compress_time=compress)
            layer.conv = torch.nn.Identity()
            x = draw(2, 2, frames, 2, 3)
            y = layer(x)
            cases.append(dict(double=compress, shape=[2, frames, 2, 3, 2], frames=y.shape[2],
                              x=flat(last(x)), y=flat(last(y))))
    return cases


def spatial():
    cases = []
    sizes = [((1, 4, 6), (1, 2, 3)), ((4, 2, 4), (2, 1, 2)), ((5, 2, 4), (2, 1, 2)), ((3, 3, 2), (3, 2, 3)),
             ((9, 1, 3), (3, 1, 2)), ((6, 1, 2), (5, 1, 1)), ((7, 2, 1), (4, 1, 1))]
    for (f, h, w), (tz, hz, wz) in sizes:
        norm = CogVideoXSpatialNorm3D(4, 3, groups=2)
        for p in norm.parameters():
            p.data = draw(*p.shape)
        x, z = draw(2, 4, f, h, w), draw(2, 3, tz, hz, wz)
        y, _ = norm(x, z)
        yb = torch.cat([norm.conv_y(z)[0], norm.conv_b(z)[0]], dim=1)
        cases.append(dict(shape=[2, f, h, w, 4], latent=[tz, hz, wz], weight=flat(norm.norm_layer.weight),
                          bias=flat(norm.norm_layer.bias), x=flat(last(x)), yb=flat(last(yb)),
                          y=flat(last(y)), silu=flat(last(F.silu(y)))))
    return cases


def nearest():
    """The interpolated index alone, for sizes that do not divide."""
    cases = []
    for size in range(1, 10):
        for out in range(1, 28):
            index = F.interpolate(torch.arange(size).float().view(1, 1, 1, 1, size), size=(1, 1, out))
            cases.append(dict(size=size, index=[int(v) for v in index.flatten()]))
    return cases


def conv_cache():
    cases = []
    for frames, keep, cached in [(1, 2, False), (3, 2, False), (1, 2, True), (2, 3, True), (5, 2, True)]:
        layer = CogVideoXCausalConv3d(2, 1, kernel_size=(keep + 1, 1, 1))
        x, cache = draw(2, 2, frames, 1, 2), draw(2, 2, keep, 1, 2)
        _, y = layer(x, cache if cached else None)
        cases.append(dict(batch=2, frames=frames, frame=4, keep=keep, x=flat(last(x)),
                          cache=flat(last(cache)) if cached else None, y=flat(last(y))))
    return cases


def sincos():
    cases = []
    for dim, h, w, t, space, time in [(16, 3, 4, 2, 1.875, 1.0), (48, 2, 5, 3, 1.0, 1.5)]:
        table = get_3d_sincos_pos_embed(dim, (w, h), t, space, time)
        cases.append(dict(dim=dim, grid=[t, h, w], space=space, time=time, table=flat(table)))
    return cases


def rotary():
    cases = []
    for dim, h, w, t, base in [(16, 3, 4, 2, (3, 4)), (64, 2, 3, 3, (4, 3)), (32, 5, 3, 2, (4, 6))]:
        crop = get_resize_crop_region_for_grid((h, w), base[1], base[0])
        cos, sin = get_3d_rotary_pos_embed(dim, crop, (h, w), t)
        cases.append(dict(dim=dim, grid=[t, h, w], crop=[list(crop[0]), list(crop[1])],
                          table=flat(torch.cat([cos, sin], dim=1))))
    cos, sin = get_3d_rotary_pos_embed(16, None, (2, 3), 3, grid_type="slice", max_size=(5, 6))
    cases.append(dict(dim=16, grid=[3, 2, 3], crop=[[0, 0], [2, 3]], table=flat(torch.cat([cos, sin], dim=1))))
    return cases


def far():
    """The last cells of the largest grids, where an angle's rounding is largest."""
    cos, sin = get_3d_rotary_pos_embed(64, None, (48, 85), 11, grid_type="slice", max_size=(48, 85))
    crop = get_resize_crop_region_for_grid((30, 45), 45, 30)
    rows = torch.cat([cos, sin], dim=1).view(11, 48 * 85, 128)[-1, -2:]
    cos, sin = get_3d_rotary_pos_embed(64, crop, (30, 45), 13)
    line = torch.cat([cos, sin], dim=1).view(13, 30 * 45, 128)[-1, -2:]
    return dict(slice=flat(rows), linspace=flat(line))


def timestep():
    cases = []
    for dim, flip, shift in [(8, True, 0.0), (9, False, 1.0), (64, True, 0.0), (2, False, 0.0)]:
        t = torch.tensor([0.0, 1.0, 499.0, 999.0, 12.5])
        y = get_timestep_embedding(t, dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
        cases.append(dict(dim=dim, flip=flip, shift=shift, t=flat(t), y=flat(y)))
    return cases


def buckets():
    cases = []
    distance = torch.arange(-400, 401)
    for count, far_ in [(32, 128), (8, 20), (64, 256), (4, 2), (16, 1000), (10, 37), (7, 50)]:
        b = T5Attention._relative_position_bucket(distance, num_buckets=count, max_distance=far_)
        cases.append(dict(buckets=count, max_distance=far_, first=-400, bucket=[int(v) for v in b]))
    return cases


def qk_rope():
    b, s, text, n, d = 2, 5, 2, 3, 16
    qkv = draw(b, s, 3, n, d)
    out = qkv.clone()
    cos, sin = get_3d_rotary_pos_embed(d, ((0, 0), (1, 3)), (1, 3), 1)
    params = []
    for part in (0, 1):
        norm = torch.nn.LayerNorm(d, eps=1e-6)
        norm.weight.data, norm.bias.data = draw(d), draw(d)
        x = norm(qkv[:, :, part]).transpose(1, 2)
        x[:, :, text:] = apply_rotary_emb(x[:, :, text:], (cos, sin))
        out[:, :, part] = x.transpose(1, 2)
        params.append(dict(weight=flat(norm.weight), bias=flat(norm.bias)))
    return dict(shape=[b, s, 3, n, d], text=text, qkv=flat(qkv), norms=params,
                table=flat(torch.stack([cos, sin], dim=1)), out=flat(out))


with torch.no_grad():
    data = dict(upsample=upsample(), spatial=spatial(), nearest=nearest(), conv_cache=conv_cache(),
                sincos=sincos(), rotary=rotary(), far=far(), timestep=timestep(), buckets=buckets(), qk_rope=qk_rope())
target = pathlib.Path(__file__).with_name("reference.json")
target.write_text("{\n" + ",\n".join(f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in data.items()) + "\n}\n")
