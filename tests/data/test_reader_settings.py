import inspect
from pathlib import Path

import pytest
import yaml

from fedlabels.data import make_views, names
from fedlabels.data.registry import reader_of

FOLDER = Path(__file__).parents[2] / "configs" / "dataset"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_every_reader_has_a_setting():
    assert tuple(path.stem for path in FILES) == names()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_settings_are_known_to_reader_and_views(path):
    setting = yaml.safe_load(path.read_text("utf-8"))
    assert setting["name"] == path.stem
    assert setting.keys() <= {"name", "root", "views", "view_options", "options"}
    parameters = inspect.signature(reader_of(path.stem)).parameters
    for option, value in setting.get("options", {}).items():
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[option].default == value
    make_views(setting["views"], **setting.get("view_options", {}))
