"""A second reading of a clip's shape, which shares no code with the judge of `ursa eval shapes`.

The judge compares polar profiles with templates over all frames. This one thresholds each frame's
distance from the border's colour, takes the convex hull of what is inside, and decides by areas:

    hole           pixels around the centre that aren't covered                     ring
    solidity       area over that of its convex hull                                star, if small
    roundness      hull's area over that of the disc around its farthest point      1 circle,
                   0.64 square, 0.41 triangle

Agreement with the judge, on rendered clips or on the mp4s of a folder of `ursa eval shapes`:

    .venv/bin/python benchmarks/second_reading.py --rendered 400
    .venv/bin/python benchmarks/second_reading.py --clips outputs/eval/heldout

Without options it is a scorer of reward recipes (`kind: command`, docs/rewards.md): JSON lines in
and out, 1 where the shape is that of the prompt.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import ConvexHull, QhullError

SHAPES = ("circle", "square", "triangle", "ring", "star")
ENLARGED = 4  # factor of the frames, so that edges are cut between pixels
LEAST_PIXELS = 40
NOTHING = "nothing"


def features(frame: np.ndarray) -> tuple[float, float, float, float] | None:
    """Area in pixels, open share of the middle, solidity and roundness; None without a figure."""
    height, width = frame.shape[:2]
    large = Image.fromarray(frame).resize(
        (width * ENLARGED, height * ENLARGED), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(large, np.float32)
    edge = np.concatenate([pixels[:4].reshape(-1, 3), pixels[:, :4].reshape(-1, 3)])
    distance = np.abs(pixels - np.median(edge, axis=0)).max(-1)
    top = np.partition(distance.ravel(), -200)[-200]
    if top < 20:
        return None
    inside = distance > top / 2
    rows, columns = np.nonzero(inside)
    points = np.stack([columns, rows], 1).astype(np.float64)
    if len(points) < LEAST_PIXELS * ENLARGED**2:
        return None
    try:
        hull = ConvexHull(points)
    except QhullError:
        return None
    corners = points[hull.vertices]
    # Points are pixels' centres, so the hull lacks half a pixel all around.
    area = hull.volume + hull.area / 2
    middle = _centre(corners)
    reach = np.hypot(*(corners - middle).T).max() + 0.5
    near = np.hypot(*(np.indices(inside.shape)[::-1].reshape(2, -1) - middle[:, None])) < reach / 4
    hole = 1 - inside.ravel()[near].mean()
    return len(points) / ENLARGED**2, float(hole), len(points) / area, area / (np.pi * reach**2)


def _centre(corners: np.ndarray) -> np.ndarray:
    """Centre of gravity of a polygon."""
    nexts = np.roll(corners, -1, 0)
    cross = corners[:, 0] * nexts[:, 1] - nexts[:, 0] * corners[:, 1]
    return ((corners + nexts) * cross[:, None]).sum(0) / (3 * cross.sum())


def read_shape(frames: np.ndarray) -> str:
    """The shape of a clip uint8 (F, H, W, 3): of its median frame by area and the larger ones."""
    found = [each for each in map(features, frames) if each is not None]
    if len(found) < len(frames) / 2:
        return NOTHING
    table = np.array(found)
    table = table[table[:, 0] >= np.median(table[:, 0])]
    _, hole, solidity, roundness = np.median(table, axis=0)
    if hole > 0.5:
        return "ring"
    if solidity < 0.8:
        return "star"
    return "circle" if roundness > 0.8 else "square" if roundness > 0.53 else "triangle"


def wanted_shape(prompt: str) -> str | None:
    """The shape that a prompt names."""
    return next((word for word in prompt.split() if word in SHAPES), None)


def read_folder(folder: Path) -> np.ndarray:
    """Frames of a folder of PNG files."""
    files = sorted(folder.glob("*.png"))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def serve() -> None:
    """Answer each line of standard input."""
    for line in sys.stdin:
        clip = json.loads(line)
        shape = wanted_shape(clip["prompt"])
        answer = {"id": clip["id"]}
        if shape is None:
            answer["error"] = "the prompt names no shape"
        else:
            answer["score"] = float(read_shape(read_folder(Path(clip["frames"]))) == shape)
        print(json.dumps(answer), flush=True)


def agreement(args: argparse.Namespace) -> None:
    """Print how often this reading and the judge name the wanted shape, and where they differ."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ursa_core.evaluation.suites.shapes import rendered, wanted
    from ursa_core.evaluation.suites.shapes_judge import judge
    from ursa_core.grids import PixelShape
    from ursa_core.media import read_media

    if args.clips:
        files = sorted(args.clips.glob("*.mp4"))
        pairs = [(file.stem.replace("_", " "), read_media(file).frames) for file in files]
    else:
        shape = PixelShape(17, 64, 64)
        pairs = [(each.prompt, rendered(each, shape, 0)) for each in wanted("train", args.rendered)]
    readings = [(wanted_shape(p), judge(frames).shape, read_shape(frames)) for p, frames in pairs]
    judged = np.mean([w == j for w, j, _ in readings])
    read = np.mean([w == s for w, _, s in readings])
    same = np.mean([j == s for _, j, s in readings])
    print(f"{len(readings)} clips: wanted shape by the judge {judged:.1%}, by this {read:.1%}")
    print(f"the same shape in {same:.1%}")
    for (first, second), count in Counter((j, s) for _, j, s in readings if j != s).most_common(8):
        print(f"  judge {first}, this {second}: {count}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rendered", type=int, help="number of rendered clips")
    parser.add_argument("--clips", type=Path, help="folder of mp4s named by their prompts")
    arguments = parser.parse_args()
    if arguments.rendered or arguments.clips:
        agreement(arguments)
    else:
        serve()
