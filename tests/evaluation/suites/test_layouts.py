"""Plans of the official suites against an independent check of the layouts."""

from pathlib import Path

import layouts
import pytest

from ursa_core.errors import DataError
from ursa_core.evaluation.suites import dpg, geneval, vbench
from ursa_core.evaluation.suites.suite import Suite, thinned


def planned(suite: Suite) -> dict[str, bytes]:
    """The files of a suite, those of the model empty; no name twice."""
    names = [file.name for file in suite.files]
    assert len(set(names)) == len(names)
    fixed = {name: text.encode() for name, text in suite.fixed.items()}
    return fixed | dict.fromkeys(names, b"")


def test_vbench_is_laid_out_as_its_scorer_reads_it() -> None:
    suite = vbench.plan()
    layouts.check_vbench(planned(suite))
    assert suite.is_whole
    rewritten = vbench.plan("rewritten")
    assert [file.name for file in rewritten.files] == [file.name for file in suite.files]
    assert all(
        len(long.prompt) > len(short.prompt)
        for long, short in zip(rewritten.files, suite.files, strict=True)
    )


def test_vbench_i2v_is_laid_out_as_its_scorer_reads_it(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    with pytest.raises(DataError, match="355 of the suite's images aren't in"):
        vbench.plan_i2v(images)
    for row in layouts.rows("vbench_i2v.jsonl"):
        (images / row["image"]).touch()
    suite = vbench.plan_i2v(images)
    layouts.check_i2v(planned(suite))
    file = next(file for file in suite.files if file.name.endswith(", camera pans left-3.mp4"))
    assert file.image is not None
    assert file.prompt == f"{file.image.stem}, camera pans left"


def test_geneval_is_laid_out_as_its_scorer_reads_it() -> None:
    suite = geneval.plan()
    assert len(suite.files) == 2212
    layouts.check_geneval(planned(suite))


def test_dpg_is_laid_out_as_its_scorer_reads_it(tmp_path: Path) -> None:
    prompts = tmp_path / "ELLA" / "dpg_bench" / "prompts"
    prompts.mkdir(parents=True)
    for name in ("111", "COCOval2014000000012345", "partiprompts7"):
        (prompts / f"{name}.txt").write_text(f"a picture of {name}\n")
    suite = dpg.plan(tmp_path / "ELLA")
    layouts.check_dpg(planned(suite), prompts)
    assert not suite.is_whole
    with pytest.raises(DataError, match="no prompts in"):
        dpg.plan(tmp_path)


def test_seeds_depend_on_prompt_and_sample_alone() -> None:
    whole = {file.name: file.seed(3) for file in vbench.plan().files}
    part = vbench.plan(limit=9).files
    assert all(whole[file.name] == file.seed(3) for file in part)
    assert len(set(whole.values())) == len(whole)
    assert {file.seed(4) for file in part}.isdisjoint(whole.values())
    assert len({file.seed(0) for file in geneval.plan().files}) == 2212


def test_a_larger_trial_holds_the_smaller_one() -> None:
    assert set(thinned(944, 5)) < set(thinned(944, 50))
    assert thinned(4, None) == thinned(4, 9) == [0, 1, 2, 3]
