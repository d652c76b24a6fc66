import pytest
from pydantic import ValidationError

from napari_msgan.sketch_settings import SketchSettings

CT = {"window": (-1000, 600), "coarse_windows": ((-600, 400), (-1000, 200))}


def test_windows_of_coarse_scales_are_shares_of_the_window():
    settings = SketchSettings(**CT)
    assert [settings.window_at(scale) for scale in range(4)] == [
        (0.25, 0.875),
        (0, 0.75),
        (0, 1),
        (0, 1),
    ]
    assert SketchSettings().window_at(0) == (0, 1)


@pytest.mark.parametrize(
    ("window", "coarse"),
    [
        ((-1000, 600), (-1001, 500)),
        ((-1000, 600), (-600, 601)),
        ((-1000, 600), (500, 500)),
        ("percentiles", (0, 1)),
    ],
)
def test_windows_of_coarse_scales_lie_in_the_window(window, coarse):
    with pytest.raises(ValidationError, match="must rise and lie in window"):
        SketchSettings(window=window, coarse_windows=(coarse,))
    SketchSettings(window=(-1000, 600), coarse_windows=((-1000, 600),))


def test_settings_without_coarse_windows_are_written_as_before():
    assert "coarse_windows" not in SketchSettings(window=(-1000, 600)).model_dump()
    settings = SketchSettings(**CT)
    assert SketchSettings.model_validate_json(settings.model_dump_json()) == settings
