import base64
import io
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation import Region, draw_regions, reader_study_page
from napari_msgan.evaluation.reader_study import most_regions
from napari_msgan.intensity import Window

N = 12


@pytest.fixture
def regions():
    """True regions are dark, generated ones bright; the last grey level names the region."""
    return [
        Region(np.full((8, 8), (200 + i) / 255, np.float32), np.full((8, 8), i / 255, np.float32))
        for i in range(N)
    ]


def shown(page):
    """Return the grey level of every picture and whether the key calls it synthetic."""
    pictures = json.loads(re.search(r"const pictures = (.*);", page)[1])
    key = json.loads(base64.b64decode(re.search(r'atob\("(.*)"\)', page)[1]))
    contents = (io.BytesIO(base64.b64decode(uri.split(",")[1])) for uri in pictures)
    return [Image.open(content).getpixel((0, 0)) for content in contents], key


def test_every_region_is_shown_once_and_half_of_them_generated(regions):
    levels, key = shown(reader_study_page(regions, "Study"))
    assert [level >= 200 for level in levels] == key
    assert sorted(level % 200 for level in levels) == list(range(N))
    assert sum(key) == N // 2


def test_order_and_key_follow_from_the_pictures_and_are_no_pattern(regions):
    page = reader_study_page(regions, "Study")
    assert page == reader_study_page(regions, "Study")
    levels, key = shown(page)
    assert levels != sorted(levels)
    assert key != [index % 2 == 0 for index in range(N)]
    other = [Region(region.made * np.float32(0.99), region.true) for region in regions]
    assert shown(reader_study_page(other, "Study"))[1] != key


@pytest.mark.parametrize("depth", [3, 20, 21, 97])
def test_slices_of_a_volume_are_no_neighbours(depth):
    body = np.ones((depth, 8, 8), bool)
    stored = np.broadcast_to(np.arange(depth, dtype=np.float32)[:, None, None], body.shape)
    case = SimpleNamespace(
        finest_scale=0,
        truth=[stored],
        window=Window(0, depth, np.dtype(np.float32)),
        store=SimpleNamespace(array=lambda scale: stored),
    )
    for seed in range(3):
        found = draw_regions(case, body, 40, seed)
        slices = sorted(round(float(region.true[0, 0]) * depth) for region in found)
        assert most_regions(body.shape) <= len(slices) <= 20
        assert min(np.diff(slices)) >= depth / 20


def test_page_reads_nothing_from_elsewhere_and_escapes_its_title(regions):
    page = reader_study_page(regions, "<b>Study</b> & more")
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|https?://|@import|fetch\(""", page)
    assert "<b>" not in page
    assert "&lt;b&gt;Study&lt;/b&gt; &amp; more" in page


def test_one_region_is_no_study(regions):
    with pytest.raises(VolumeError, match="at least two regions"):
        reader_study_page(regions[:1], "Study")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_keys_that_are_held_or_meant_for_the_browser_are_no_answers(regions):
    script = re.search(r"<script>(.*)</script>", reader_study_page(regions, "Study"), re.DOTALL)[1]
    harness = (
        "let press; const document = {addEventListener(_, f) { press = f; }, "
        "getElementById() { return {}; }};"
        f"{script}; press({{key: 's', ctrlKey: true}}); press({{key: 'r', repeat: true}});"
        "press({key: 's'}); console.log(JSON.stringify(answers))"
    )
    ran = subprocess.run(["node", "-e", harness], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == [True]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
@pytest.mark.parametrize("wrong", [0, 3, N])
def test_page_scores_a_reader_with_the_wilson_interval_of_scipy(regions, wrong):
    page = reader_study_page(regions, "Study")
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    said = f"isSynthetic.map((truth, i) => i < {wrong} ? !truth : truth)"
    # a page that a click on a button or a key answers, and nothing else
    harness = (
        "const parts = {}; const document = {addEventListener() {}, getElementById(id) {"
        "return parts[id] ??= {querySelector() { return {}; }}; }};"
        f"{script}; for (const s of {said}) parts[s ? 'synthetic' : 'real'].onclick();"
        "console.log(JSON.stringify({score: score(answers, isSynthetic), "
        "html: parts.result.innerHTML, left: parts.study.hidden}))"
    )
    ran = subprocess.run(["node", "-e", harness], capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    hits = N - wrong
    interval = binomtest(hits, N).proportion_ci(method="wilson")
    assert found["left"]
    assert found["score"]["hits"] == hits
    assert found["score"]["interval"] == pytest.approx([interval.low, interval.high], abs=1e-12)
    assert (
        f"Accuracy {100 * hits / N:.1f} % (95 % interval {100 * interval.low:.1f} %"
        in (found["html"])
    )
