"""Image files: NIfTI, TIFF, DICOM, PNG and JPEG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from benchmarks.fuzz.mutate import changed_bytes
from benchmarks.fuzz.targets.base import Target

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.fuzz.choices import Choices


class Reader(Target):
    """A file of one image format."""

    suffix: ClassVar[str]

    def make(self, folder: Path) -> None:
        from napari_msgan.geometry import Affine
        from napari_msgan.io import write_volume
        from napari_msgan.volume import Volume

        values = np.random.default_rng(5).integers(0, 250, (3, 17, 21)).astype(np.int16)
        volume = Volume(values, Affine.of_spacing((2.5, 0.7, 0.6)), "millimeter")
        write_volume(folder / f"a{self.suffix}", [volume], description={"content": "made"})

    def harm(self, choices: Choices, folder: Path) -> None:
        path = folder / f"a{self.suffix}"
        path.write_bytes(changed_bytes(choices, path.read_bytes()))

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.io import read_description, read_volume

        path = folder / f"a{self.suffix}"
        data = read_volume(path).data
        np.asarray(data[tuple(slice(0, 64) for _ in data.shape)])
        read_description(path)


class Nifti(Reader):
    """NIfTI, with pieces of the header and the comment changed."""

    suffix = ".nii"


class NiftiGz(Reader):
    """Compressed NIfTI: the header inside changed, or the compressed file."""

    suffix = ".nii.gz"

    def harm(self, choices: Choices, folder: Path) -> None:
        import gzip

        path = folder / f"a{self.suffix}"
        if choices.below(4) == 3:
            super().harm(choices, folder)
        else:
            content = changed_bytes(choices, gzip.decompress(path.read_bytes()))
            path.write_bytes(gzip.compress(content, 1, mtime=0))


class OmeTiff(Reader):
    """OME-TIFF as the package writes it."""

    suffix = ".ome.tif"


class Tiff(Reader):
    """TIFF as other programs write it: strips or tiles, compressions, colours, ImageJ."""

    suffix = ".tif"

    def make(self, folder: Path) -> None:
        import tifffile

        values = np.random.default_rng(5).integers(0, 250, (3, 32, 48)).astype(np.uint8)
        imagej = {"unit": "mm", "spacing": 3.0, "cf": 0, "c0": -128.0, "c1": 0.5}
        variants: tuple[dict[str, Any], ...] = (
            {},
            {"imagej": True, "resolution": (2.0, 2.0), "metadata": imagej},
            {"tile": (16, 16), "compression": "lzw"},
            {"rowsperstrip": 8, "compression": "packbits", "photometric": "miniswhite"},
            {"tile": (16, 16), "compression": "jpeg"},
            {"rowsperstrip": 8, "compression": "zstd", "bigtiff": True},
            {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"},
        )
        for index, options in enumerate(variants):
            options = {"photometric": "minisblack", **options}
            tifffile.imwrite(folder / f"{index}.tif", values, **options)
        self.contents = [(folder / f"{i}.tif").read_bytes() for i in range(len(variants))]

    def harm(self, choices: Choices, folder: Path) -> None:
        content = choices.pick(self.contents)
        # The tags stand behind the pixels where tifffile compresses.
        where = int.from_bytes(content[4:8], "little")
        if choices.below(2) and 8 < where < len(content):
            content = content[:where] + changed_bytes(choices, content[where:], head=256)
        else:
            content = changed_bytes(choices, content)
        (folder / "a.tif").write_bytes(content)


class Dicom(Target):
    """A series, frames and single images in several compressions, one of their files changed."""

    def make(self, folder: Path) -> None:
        import imagecodecs
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.uid import (
            CTImageStorage,
            ExplicitVRLittleEndian,
            ImplicitVRLittleEndian,
            JPEG2000Lossless,
            JPEGLosslessSV1,
            JPEGLSLossless,
            RLELossless,
        )

        pixels = np.random.default_rng(5).integers(0, 4000, (11, 13)).astype(np.uint16)
        high_and_low = [(pixels >> 8).astype(np.uint8), pixels.astype(np.uint8)]
        segments = [b"".join(bytes([0, v]) for v in part.ravel()) for part in high_and_low]
        starts = [64, 64 + len(segments[0])]
        rle = np.array([2, *starts, *[0] * 13], "<u4").tobytes() + b"".join(segments)
        frames = {
            JPEGLSLossless: imagecodecs.jpegls_encode(pixels),
            JPEG2000Lossless: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"),
            JPEGLosslessSV1: imagecodecs.ljpeg_encode(pixels, bitspersample=16),
            RLELossless: rle,
        }

        def write(name: str, syntax: str, count: int = 1, **elements: Any) -> None:
            made = Dataset()
            made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, "1.2.3.4"
            made.SeriesInstanceUID, made.Modality = "1.2", "CT"
            made.Rows, made.Columns = pixels.shape
            made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME1"
            made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
            made.PixelRepresentation, made.RescaleSlope, made.RescaleIntercept = 0, 1, -1024
            made.ImageOrientationPatient, made.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.6]
            for element, value in elements.items():
                setattr(made, element, value)
            made.file_meta = FileMetaDataset()
            made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
            made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
            made.file_meta.TransferSyntaxUID = syntax
            made.PixelData = count * pixels.tobytes()
            if syntax in frames:
                made.PixelData = encapsulate(count * [bytes(frames[syntax])])
                made["PixelData"].VR = "OB"
            made.save_as(folder / name, enforce_file_format=True)

        def group(name: str, **elements: Any) -> Dataset:
            said, groups = Dataset(), Dataset()
            for element, value in elements.items():
                setattr(said, element, value)
            setattr(groups, name, [said])
            return groups

        for number in range(4):
            write(f"{number}.dcm", ExplicitVRLittleEndian, ImagePositionPatient=[0, 0, number])
        self.contents = {}
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, *frames):
            write("x.dcm", syntax, Modality="DX")
            self.contents[syntax] = (folder / "x.dcm").read_bytes()
        own = [group("PlanePositionSequence", ImagePositionPatient=[0, 0, z]) for z in range(2)]
        measures = group("PixelMeasuresSequence", PixelSpacing=[0.7, 0.6])
        groups = {
            "NumberOfFrames": 2,
            "PerFrameFunctionalGroupsSequence": own,
            "SharedFunctionalGroupsSequence": [measures],
        }
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless):
            write("x.dcm", syntax, count=2, **groups)
            self.contents[f"frames {syntax}"] = (folder / "x.dcm").read_bytes()
        (folder / "x.dcm").unlink()

    def harm(self, choices: Choices, folder: Path) -> None:
        if choices.below(3):
            self.name = "x.dcm"
            content = self.contents[choices.pick(sorted(self.contents))]
        else:
            self.name = f"{choices.below(4)}.dcm"
            content = (folder / self.name).read_bytes()
        tags = b"\x28\x00\x02\x00", b"\x00\x52\x29\x92"  # of the pixels, and of frames
        found = [max(0, content.find(tag)) for tag in tags]
        where = choices.pick([0, 128, *found, len(content) - 400])
        changed = content[:where] + changed_bytes(choices, content[where:], head=256)
        (folder / self.name).write_bytes(changed)

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.io import images_in, read_geometry, read_volume

        images_in(folder)
        path = folder / self.name if self.name == "x.dcm" else folder
        read_geometry(path)
        np.asarray(read_volume(path).data[...])


class Picture(Reader):
    """PNG and JPEG with several pixel types."""

    suffix = ".png"

    def make(self, folder: Path) -> None:
        from PIL import Image

        grey = np.random.default_rng(5).integers(0, 250, (23, 31)).astype(np.uint8)
        kinds = {
            "a.png": Image.fromarray(grey),
            "b.png": Image.fromarray(grey.astype(np.uint16) * 200),
            "c.png": Image.fromarray(grey).convert("P"),
            "a.jpg": Image.fromarray(grey),
            "b.jpg": Image.fromarray(grey).convert("CMYK"),
        }
        for name, picture in kinds.items():
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.save(folder / name, exif=exif)
        self.contents = {name: (folder / name).read_bytes() for name in kinds}

    def harm(self, choices: Choices, folder: Path) -> None:
        self.name = choices.pick(sorted(self.contents))
        content = changed_bytes(choices, self.contents[self.name], head=128)
        if self.name.endswith("png") and choices.below(2):
            content = _with_checksums(content)
        (folder / self.name).write_bytes(content)

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.io import read_volume

        read_volume(folder / self.name)


def _with_checksums(png: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums that their content needs."""
    import zlib

    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)
