"""The rehearsal at full size, rehearsed with tiny networks."""

import json

import full_size
import pytest
from full_size import Scale, rehearse, run_measured

from ursa_core.bundle.bundle import load_bundle
from ursa_core.bundle.folder import URSA_MODEL
from ursa_core.bundle.weights import weight_files

TINY = Scale(tiny=True, frames=5, height=16, width=16, image=32)


def test_quick_phases_run_and_are_kept(tmp_path, capsys):
    wanted = {"show", "blocks", "image", "interpolate"}
    done = rehearse(tmp_path, ["video"], wanted, TINY, run_measured)
    assert set(done) == {f"video {name}" for name in wanted}
    found = done["video blocks"]
    assert found["grown"].keys() == {"activations", "logits", "decoding"}
    assert found["estimate"]["total"] > found["estimate"]["transformer"] > 0
    assert found["peak"] > found["grown"]["activations"]
    assert (tmp_path / "video/files/c.mkv").exists()
    assert "video blocks: " in capsys.readouterr().out
    model = tmp_path / "video/model"
    URSA_MODEL.check(model)
    assert len(set(weight_files(model / "transformer").values())) > 1, "sharded"
    bundle = load_bundle(model)
    assert bundle.text_tokenizer.token_id("<|vision_start|>") == 303
    assert bundle.text_tokenizer.max_id + 1 == bundle.transformer.config.lm_vocab_size

    def refuse(words):
        raise AssertionError(words)

    assert rehearse(tmp_path, ["video"], wanted, TINY, refuse) == done
    assert json.loads((tmp_path / "record.json").read_text()) == done


def test_a_phase_that_fails_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(full_size, "PROMPT", "\ud800")
    monkeypatch.setattr(full_size, "film", lambda folder, scale: folder)
    with pytest.raises(SystemExit, match="ended with 2"):
        rehearse(tmp_path, ["image"], {"sample"}, TINY, run_measured)
    assert not (tmp_path / "record.json").exists()


def test_the_folder_is_deleted(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    monkeypatch.setattr(full_size, "rehearse", lambda work, *_: work.mkdir())
    full_size.main(["--folder", str(folder)])
    assert not folder.exists()


@pytest.mark.slow
def test_all_phases_run_apart(tmp_path):
    done = rehearse(tmp_path, ["image", "video"], set(), TINY)
    assert len(done) == 18
