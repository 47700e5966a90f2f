"""Sums up what was measured of the photographs of one camera."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cnnsens_bench.camera.defects import DefectFinder, value_share
from cnnsens_bench.camera.exposure import white_balance_level
from cnnsens_bench.camera.mix import mix_of
from cnnsens_bench.camera.noise import CHANNELS, HIGH, NoiseFigures
from cnnsens_bench.camera.photograph import PhotographFigures
from cnnsens_bench.camera.photon_transfer import CENTRES, photon_transfer
from cnnsens_bench.camera.report import BrightnessNoise, CameraReport, Measurement
from cnnsens_bench.camera.shots import one_of_each_scene
from cnnsens_bench.camera.spread import mean_over, median_over, share_over

COARSE_STEP = 2.0
"""By how many standard deviations of the noise JPEG may round fine detail before fine noise is lost."""
REDUCED = 1.5
"""The reduction from which what a JPEG has lost of single pixels is averaged away."""
LEAST_NOISE = 0.5
"""The standard deviation in gray levels below which noise cannot be told from rounding."""
DEFOCUS = (1.58, 2.06, 3.04, 4.03, 5.02)
"""The blur, as the σ of a Gaussian in pixels, of the degradation `common:defocus_blur` at the severities 1 to 5: half
the radius of its disk, and the blur of its rim."""


@dataclass
class _Summary:
    """The parts of a report while they are collected."""

    photographs: Sequence[PhotographFigures]
    measurements: dict[str, Measurement] = field(default_factory=dict)
    levels: dict[str, Measurement] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def summarise(
    photographs: Sequence[PhotographFigures],
    pairs: Sequence[NoiseFigures],
    defects: DefectFinder,
    name: str,
    input_size: int | None,
    notes: Sequence[str] = (),
) -> CameraReport:
    """Return what photographs of one camera have in common.

    Parameters
    ----------
    photographs
        What was measured of each photograph, of at least one.
    pairs
        The noise of pairs of shots of one scene. Where there are any, noise is taken from them.
    defects
        What has counted defective pixels.
    name
        What the user calls the camera.
    input_size
        The side that the photographs were resized to.
    notes
        What is to be said besides.
    """
    parts = _Summary(photographs, notes=list(notes))
    cameras = {photograph.facts.camera for photograph in photographs}
    if len(photographs) == 1:
        parts.notes.append("one photograph says nothing about how photographs differ: most intervals are missing")
    curve = _add_noise(parts, pairs)
    _add_blur(parts)
    _add_exposure(parts)
    _add_jpeg(parts)
    _add_black_pixels(parts, defects)
    return CameraReport(
        name=name,
        camera=cameras.pop() if len(cameras) == 1 else None,
        photographs=len(photographs),
        input_size=input_size,
        measurements=parts.measurements,
        noise_by_brightness=curve,
        levels=parts.levels,
        mix=mix_of(parts.measurements, parts.levels),
        notes=parts.notes,
    )


def _add_noise(parts: _Summary, pairs: Sequence[NoiseFigures]) -> list[BrightnessNoise]:
    """Add the noise, and return it by brightness."""
    single = [(photo, photo.noise) for photo in parts.photographs if photo.noise]
    found = list(pairs) or [noise for _, noise in single]
    if not found:
        parts.notes.append("noise cannot be told: nearly all of each photograph is clipped, or it is too small")
        return []
    smoothed = not pairs and 2 * sum(_is_smoothed(photo, noise) for photo, noise in single) > len(single)
    for index, channel in enumerate(CHANNELS):
        parts.measurements[f"noise_{channel}"] = _deviation(found, lambda v, i=index: v[i], smoothed)  # type: ignore[misc]
    overall = _deviation(found, lambda variances: variances[:3].mean(), smoothed)
    parts.levels |= {"gaussian_rgb": overall, "gaussian_intensity": parts.measurements["noise_intensity"]}
    if single:
        parts.measurements["noise_wavelet"] = median_over([math.sqrt(noise.wavelet) for _, noise in single], 0)
    if pairs:
        parts.notes.append(
            f"noise is that of {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of shots of one scene"
        )
    if smoothed:
        parts.notes.append(
            "JPEG has taken fine noise away: the noise is that of all frequencies, where texture counts too, and its "
            "interval begins at the fine noise that is left"
        )
    if overall.value < LEAST_NOISE:
        parts.notes.append("noise below half a gray level cannot be told from rounding")
    curves = np.stack([noise.by_brightness for noise in found])
    transfer = photon_transfer(curves[:, :, :3].mean(2))
    if transfer is None:
        parts.notes.append("how noise grows with light cannot be told: too few levels of brightness have flat areas")
    else:
        parts.measurements |= {"noise_offset": transfer.offset, "noise_slope": transfer.slope}
        if transfer.electrons and overall.value >= LEAST_NOISE:
            parts.levels["shot_noise"] = transfer.electrons
    return _by_brightness(curves)


def _is_smoothed(photograph: PhotographFigures, noise: NoiseFigures) -> bool:
    """Return whether a lossy file has rounded away the fine noise that a photograph had."""
    if not photograph.facts.lossy or photograph.reduction >= REDUCED:
        return False
    if photograph.jpeg is None:
        return True
    return photograph.jpeg.fine_step > COARSE_STEP * math.sqrt(noise.coarse[:3].mean())


def _deviation(found: Sequence[NoiseFigures], choose: Callable[[np.ndarray], float], smoothed: bool) -> Measurement:
    """Return the standard deviation over photographs of one of the variances."""
    fine = _with_interval([math.sqrt(choose(noise.fine)) for noise in found], found)
    if not smoothed:
        return fine
    coarse = _with_interval([math.sqrt(choose(noise.coarse)) for noise in found], found)
    return Measurement.of(coarse.value, min(fine.span[0], coarse.span[0]), coarse.span[1])


def _with_interval(deviations: Sequence[float], found: Sequence[NoiseFigures]) -> Measurement:
    if len(deviations) > 1:
        return median_over(deviations, 0)
    # The median over frequencies of variances of so many blocks has this relative deviation, a standard deviation half.
    half = 1.96 * 1.25 * math.sqrt(2 / found[0].flat / HIGH.sum()) / 2
    return Measurement.of(deviations[0], deviations[0] * (1 - half), deviations[0] * (1 + half))


def _by_brightness(curves: np.ndarray) -> list[BrightnessNoise]:
    """Return the noise in each range of brightness that a photograph or pair has."""
    ranges = []
    for centre, variances in zip(CENTRES, curves.transpose(1, 0, 2), strict=True):
        known = variances[np.isfinite(variances[:, 0])]
        if len(known):
            by_channel = {name: median_over(np.sqrt(known[:, i]), 0) for i, name in enumerate(CHANNELS)}
            ranges.append(BrightnessNoise(brightness=float(centre), photographs=len(known), **by_channel))
    return ranges


def _add_blur(parts: _Summary) -> None:
    values = [photograph.blur for photograph in parts.photographs]
    if not np.isfinite(values).any():
        parts.notes.append("blur cannot be told: the photographs have too few edges")
        return
    blur = parts.measurements["blur"] = median_over(values, 0)
    parts.notes.append("blur is that of the median strong edge: focus, motion and the lens are not told apart")
    if DEFOCUS[0] <= blur.value <= DEFOCUS[-1]:
        severity = [float(np.interp(bound, DEFOCUS, range(1, 6))) for bound in (blur.value, *blur.span)]
        parts.levels["common:defocus_blur"] = Measurement.of(*severity)


def _add_exposure(parts: _Summary) -> None:
    found = [photograph.exposure for photograph in parts.photographs]
    parts.measurements |= {
        "intensity": mean_over([one.intensity for one in found], 0, 255),
        "exposure": mean_over([one.stops for one in found]),
        "clipped_highlights": mean_over([one.highlights for one in found], 0, 1),
        "clipped_shadows": mean_over([one.shadows for one in found], 0, 1),
    }
    parts.notes.append("exposure and clipping are no level of a degradation: they are not in the mix")
    photographs = [photograph for photograph in parts.photographs if math.isfinite(photograph.exposure.red)]
    coloured = [photograph.exposure for photograph in photographs]
    if not coloured:
        parts.notes.append("white balance cannot be told: the photographs are gray or clipped")
        return
    parts.measurements["gain_red"] = median_over([one.red for one in coloured], 0)
    parts.measurements["gain_blue"] = median_over([one.blue for one in coloured], 0)
    # That shots of one scene agree says nothing: what the scene shows has a colour too.
    scenes = one_of_each_scene([one.thumbnail for one in photographs], [one.layout for one in photographs])
    lights = [white_balance_level(coloured[number].red, coloured[number].blue) for number in scenes]
    parts.levels["white_balance"] = median_over(lights)
    if len(lights) == 1:
        parts.notes.append("white balance of one scene may be the colour of what it shows")


def _add_jpeg(parts: _Summary) -> None:
    found = [photograph.jpeg for photograph in parts.photographs if photograph.jpeg]
    if not found:
        parts.notes.append("JPEG quality cannot be told: no photograph is a JPEG file")
        return
    qualities = [one.quality for one in found]
    one_alone = len(set(qualities)) == 1
    quality = (
        median_over(qualities, 1, 100) if not one_alone else Measurement.of(qualities[0], qualities[0], qualities[0])
    )
    quality = parts.measurements["jpeg_quality"] = quality
    others = sum(not one.exact for one in found)
    if others:
        parts.notes.append(f"{others} of {len(found)} JPEG files have tables of their own: the quality is the nearest")
    if max(photograph.reduction for photograph in parts.photographs) >= REDUCED:
        parts.notes.append("JPEG quality is that of the files: a resize averages its traces away, so it is no level")
        return
    parts.levels["jpeg"] = quality


def _add_black_pixels(parts: _Summary, defects: DefectFinder) -> None:
    shares = defects.shares()
    if shares is None:
        parts.notes.append(
            "defective pixels cannot be told: that takes five photographs of one size, of different scenes"
        )
    else:
        _, pixels, dark, bright = shares
        parts.measurements["dead_pixels"] = share_over([dark], [pixels])
        parts.measurements["bright_pixels"] = share_over([bright], [pixels])
    counts = [photograph.black for photograph in parts.photographs if photograph.black and photograph.black.looked_at]
    if not counts:
        lossy = any(photograph.facts.lossy for photograph in parts.photographs)
        reason = "the files are compressed, which smears them" if lossy else "no part of the photographs is bright"
        parts.notes.append(f"black pixels cannot be told: {reason}")
        return
    looked_at = [count.looked_at for count in counts]
    black = share_over([count.pixels for count in counts], looked_at)
    zeros = share_over([count.values for count in counts], [3 * total for total in looked_at])
    parts.measurements |= {"black_pixels": black, "black_values": zeros}
    if any(photograph.reduction > 1 for photograph in parts.photographs):
        parts.notes.append("black pixels are those of the files: a resize averages them away, so they are no level")
        return
    alone = value_share(black.value, zeros.value)
    half = max(zeros.value - zeros.span[0], zeros.span[1] - zeros.value)
    parts.levels["pepper"] = Measurement.of(alone, max(alone - half, 0.0), min(alone + half, 1.0))
    whole = max(black.value - alone**3, 0.0)
    parts.levels["pepper_pixel"] = Measurement.of(whole, min(whole, black.span[0]), max(whole, black.span[1]))
