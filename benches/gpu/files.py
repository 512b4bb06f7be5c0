"""Tensors and pictures in files, without packages, and how much they differ."""
import array
import json
import math
import random
import struct
import zlib


def write_tensors(path, tensors):
    """Numbers of the given shapes, as a safetensors file: name -> (shape, values)."""
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


def noise(seed, *shape):
    source = random.Random(seed)
    return list(shape), [source.gauss(0, 1) for _ in range(math.prod(shape))]


def error(found, expected):
    """Relative L2 error; infinite where something is no number or the lengths differ."""
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
