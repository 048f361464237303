"""Stand-ins for the official scorers: they read the layouts as those do, and write their outputs.

Written from the scorers' documentation. Each is a checkout that runs as a process of its own; what
it scores follows from the bytes of the files, so that scores differ and are the same again.
"""

import json
from pathlib import Path

from layouts import LISTS

_VBENCH = """
import argparse, datetime, hashlib, json, os, sys
from pathlib import Path
import vbench

parser = argparse.ArgumentParser()
parser.add_argument("--videos_path", required=True)
parser.add_argument("--dimension", nargs="+", required=True)
parser.add_argument("--output_path", default="./evaluation_results/")
parser.add_argument("--full_json_dir", default=INFO)
parser.add_argument("--ratio")
parser.add_argument("--mode", default="vbench_standard")
parser.add_argument("--dev_flag", action="store_true")
parser.add_argument("--static_filter_flag", action="store_true")
args = parser.parse_args()
print("start evaluation", args.dimension)
if Path("crash").exists() and Path("crash").read_text() in args.dimension:
    print("CUDA error: out of luck")
    sys.exit(3)
os.makedirs(args.output_path, exist_ok=True)
names = os.listdir(args.videos_path)
postfix = Path(names[0]).suffix
assert args.ratio == RATIO
if args.mode.startswith("long"):
    os.makedirs(os.path.join(args.videos_path, "split_clip"), exist_ok=True)
results = {}
stamp = datetime.datetime.now().strftime("%Y-%m-%d-%H:%M:%S")
for dimension in args.dimension:
    videos = []
    for entry in json.load(open(args.full_json_dir)):
        if dimension not in entry["dimension"]:
            continue
        for i in range(5):
            name = f"{entry['prompt_en']}-{i}{postfix}"
            if name not in names:
                print("WARNING!!! This required video is not found!", name)
                continue
            path = os.path.join(args.videos_path, name)
            value = hashlib.sha256(Path(path).read_bytes()).digest()[0] / 255
            if dimension in ("dynamic_degree", "human_action"):
                value = value > 0.5
            videos.append({"video_path": path, "video_results": value})
    score = sum(float(video["video_results"]) for video in videos) / len(videos)
    results[dimension] = [score, videos]
Path(args.output_path, f"results_{stamp}_full_info.json").write_text("[]")
Path(args.output_path, f"results_{stamp}_eval_results.json").write_text(json.dumps(results))
print("done")
"""

_FILTER = """
import argparse, os, shutil
parser = argparse.ArgumentParser()
parser.add_argument("--videos_path", required=True)
parser.add_argument("--result_path", required=True)
parser.add_argument("--filter_scope", required=True)
args = parser.parse_args()
target = os.path.join(args.result_path, "filtered_videos")
os.makedirs(target, exist_ok=True)
import json
prompts = [e["prompt_en"] for e in json.load(open("vbench/VBench_full_info.json"))
           if args.filter_scope in e["dimension"]]
for prompt in prompts:
    found = [f"{prompt}-{i}.mp4" for i in range(25)]
    found = [n for n in found if os.path.exists(os.path.join(args.videos_path, n))]
    for i, name in enumerate(found[-5:]):
        shutil.copy(os.path.join(args.videos_path, name), os.path.join(target, f"{prompt}-{i}.mp4"))
"""

_GENEVAL = """
import argparse, hashlib, json, os, re
import clip_benchmark, mmdet, open_clip, pandas
parser = argparse.ArgumentParser()
parser.add_argument("imagedir")
parser.add_argument("--outfile", default="results.jsonl")
parser.add_argument("--model-path", default="./")
args = parser.parse_args()
rows = []
for subfolder in os.listdir(args.imagedir):
    folder = os.path.join(args.imagedir, subfolder)
    if not os.path.isdir(folder) or not subfolder.isdigit():
        continue
    metadata = json.load(open(os.path.join(folder, "metadata.jsonl")))
    for name in os.listdir(os.path.join(folder, "samples")):
        path = os.path.join(folder, "samples", name)
        if not os.path.isfile(path) or not re.match(r"\\d+\\.png", name):
            continue
        correct = hashlib.sha256(open(path, "rb").read()).digest()[0] % 2 == 0
        rows.append({"filename": path, "tag": metadata["tag"], "prompt": metadata["prompt"],
                     "correct": correct, "reason": "" if correct else "expected bench>=1, found 0",
                     "metadata": json.dumps(metadata), "details": "{}"})
with open(args.outfile, "w") as file:
    file.writelines(json.dumps(row) + "\\n" for row in rows)
"""

_DPG = """
import argparse, hashlib, os
import modelscope, pandas
from PIL import Image
parser = argparse.ArgumentParser()
for name in ("--image-root-path", "--res-path", "--vqa-model"):
    parser.add_argument(name)
parser.add_argument("--resolution", type=int)
parser.add_argument("--pic-num", type=int, default=1)
args = parser.parse_args()
assert args.pic_num == 4 and args.vqa_model == "mplug"
means = []
with open(args.res_path, "w") as file:
    for name in os.listdir(args.image_root_path):
        path = os.path.join(args.image_root_path, name)
        image, r = Image.open(path), args.resolution
        assert image.size == (2 * r, 2 * r), "would be cut wrongly"
        boxes = [(0, 0, r, r), (r, 0, 2 * r, r), (0, r, r, 2 * r), (r, r, 2 * r, 2 * r)]
        cuts = [hashlib.sha256(image.crop(box).tobytes()).digest()[0] / 255 for box in boxes]
        assert len(set(cuts)) == 4, "samples are the same"
        means.append(sum(cuts) / 4)
        file.write(path + ", " + ", ".join(map(str, cuts)) + f", {means[-1]}\\n")
    file.write("Model: images\\nL1 category scores:\\n\\tentity: 81.5\\n\\tattribute: 70.25\\n")
    file.write("L2 category scores:\\n\\tentity - whole: 81.5\\n")
    file.write(f"DPG-Bench score: {100 * sum(means) / len(means)}\\n")
"""

_LAUNCH = """
import runpy, sys
at = next(k for k, word in enumerate(sys.argv) if word.endswith(".py") and k)
sys.argv = sys.argv[at:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _info(name: str) -> str:
    rows = [json.loads(line) for line in (LISTS / name).open(encoding="utf-8")]
    return json.dumps(
        [{"prompt_en": row["prompt"], "dimension": row["dimensions"]} for row in rows]
    )


def write_vbench(repo: Path) -> Path:
    """A checkout of VBench with the scorers of all three suites."""
    info, i2v = "vbench/VBench_full_info.json", "vbench2_beta_i2v/vbench2_i2v_full_info.json"
    for module in ("vbench", "detectron2", "scenedetect"):
        _write(repo / module / "__init__.py")
    _write(repo / info, _info("vbench.jsonl"))
    _write(repo / i2v, _info("vbench_i2v.jsonl"))
    _write(repo / "vbench2_beta_long" / "VBench_full_info.json", _info("vbench.jsonl"))
    text = _VBENCH.replace("INFO", repr(info)).replace("RATIO", "None")
    _write(repo / "evaluate.py", text)
    path = 'import sys; sys.path.insert(0, ".")'
    _write(repo / "vbench2_beta_long" / "eval_long.py", path + text)
    text = _VBENCH.replace("INFO", repr(i2v)).replace("RATIO", "'8-5'")
    _write(repo / "evaluate_i2v.py", text)
    _write(repo / "static_filter.py", _FILTER)
    return repo


def write_geneval(repo: Path) -> Path:
    """A checkout of GenEval."""
    for module in ("mmdet", "open_clip", "clip_benchmark", "pandas"):
        _write(repo / module / "__init__.py")
    path = 'import sys; sys.path.insert(0, ".")'
    _write(repo / "evaluation" / "evaluate_images.py", path + _GENEVAL)
    return repo


def write_ella(repo: Path, num_prompts: int) -> Path:
    """A checkout of ELLA with some prompts."""
    for module in ("modelscope", "pandas", "accelerate", "accelerate/commands"):
        _write(repo / module / "__init__.py")
    _write(repo / "accelerate" / "commands" / "launch.py", _LAUNCH)
    path = 'import sys; sys.path.insert(0, ".")'
    _write(repo / "dpg_bench" / "compute_dpg_bench.py", path + _DPG)
    for number in range(num_prompts):
        _write(repo / "dpg_bench" / "prompts" / f"{number}.txt", f"a red circle {number}\n")
    return repo
